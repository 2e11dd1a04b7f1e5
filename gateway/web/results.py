"""What a job says, put into words: its state, its findings, why there are none."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gateway.job import State
from gateway.web.language import Language

_BY_STATE: Final[Mapping[str, str]] = {
    State.QUEUED: "waiting",
    State.RUNNING: "running",
    State.DEAD: "failed",
    State.CANCELLED: "cancelled",
}
_BY_ACTION: Final[Mapping[str, str]] = {"accept": "verified", "correct": "corrected", "reject": "rejected"}
_RANK: Final = (
    "failed",
    "not-evaluable",
    "running",
    "waiting",
    "preliminary",
    "rejected",
    "corrected",
    "verified",
    "cancelled",
)
"""What a study with several bundles shows: the state that asks most for attention."""


@dataclass(frozen=True, slots=True)
class FoundClass:
    """The answer of one level."""

    name: str
    """As people say it; of the code, in English."""
    probability: float
    is_positive: bool | None
    """None where it is not known: results of earlier versions."""


def work_state(state: str, reason: str | None, verification: Any) -> str:
    """Return where a job stands for a radiologist: a key of the texts `state.…`."""
    if state != State.DONE:
        return _BY_STATE.get(state, state)
    if isinstance(verification, dict):
        return _BY_ACTION.get(str(verification.get("action")), "verified")
    return "not-evaluable" if reason else "preliminary"


def most_urgent(states: Sequence[str]) -> str:
    """Return the state that a study with jobs in these states shows."""
    return min(states, key=lambda state: _RANK.index(state) if state in _RANK else len(_RANK))


def outcomes(summary: Any) -> list[Mapping[str, Any]]:
    """Return the outcomes of a job's summary."""
    listed = summary.get("outcomes", []) if isinstance(summary, dict) else []
    return [each for each in listed if isinstance(each, dict)]


def found_classes(summary: Any, positive: Mapping[tuple[int, str], bool]) -> Iterator[FoundClass]:
    """Yield the answer of each level of each outcome.

    Parameters
    ----------
    positive
        Outcome's ordinal and tracking id -> whether the answer is a positive class.
    """
    for ordinal, outcome in enumerate(outcomes(summary)):
        for finding in outcome.get("findings", []):
            yield FoundClass(
                answer_meaning(finding), finding["probability"], positive.get((ordinal, finding.get("id", "")))
            )


def first_measurements(summary: Any) -> Iterator[tuple[str, float, str]]:
    """Yield label, value and unit of the first measurement of each segment."""
    for outcome in outcomes(summary):
        for segment in outcome.get("segments", []):
            for measurement in segment.get("measurements", [])[:1]:
                if measurement["value"] is not None:
                    yield segment["label"], measurement["value"], measurement["unit"]


def answer_meaning(finding: Mapping[str, Any]) -> str:
    """Return the answer as its code says it, for example 'Viral pneumonia' for the class 'viral'."""
    for each in finding.get("alternatives", []):
        if each.get("name") == finding["answer"]:
            return str(each["code"]["meaning"])
    return str(finding["answer"])


def label_set_text(language: Language, finding: Mapping[str, Any]) -> str:
    """Return the classes among which the true one is, and how surely; '' where the model states no coverage."""
    said = finding.get("label_set")
    if not said:
        return ""
    meanings = {each["name"]: str(each["code"]["meaning"]) for each in finding.get("alternatives", [])}
    names = language("list.comma").join(language.term(meanings.get(name, name)) for name in said["names"])
    return language("study.label-set", names=names, percent=f"{100 * said['coverage']:g} %")


def uncertainty(finding: Mapping[str, Any]) -> float | None:
    """Return the entropy of the classes' probabilities over its greatest value: 0 certain, 1 undecided.

    None where there is but one class.
    """
    shares = [float(each["probability"]) for each in finding.get("alternatives", [])]
    total = sum(shares)
    if len(shares) < 2 or total <= 0:  # noqa: PLR2004 # one class has no spread
        return None
    entropy = -sum(share / total * math.log(share / total) for share in shares if share > 0)
    return max(0.0, min(1.0, entropy / math.log(len(shares))))


def reason_text(language: Language, reason: str | None, summary: Any) -> str:
    """Return why there is no finding; in other languages than English the heading of a known code stands for it."""
    withheld = [each for each in outcomes(summary) if not each.get("evaluable")]
    if language.code == "en" or not withheld:
        return (reason or "").removeprefix("not evaluable: ")
    separator = language("list.separator")
    return separator.join(dict.fromkeys(withheld_text(language, each) for each in withheld))


def withheld_text(language: Language, outcome: Mapping[str, Any]) -> str:
    """Return why one outcome was not evaluable, in short."""
    return language.known(f"reason.{outcome.get('code')}", str(outcome.get("reason", "")))
