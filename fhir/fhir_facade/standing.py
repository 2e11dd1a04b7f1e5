"""Where a report stands between algorithm and person -> FHIR status, and the words and names that go with it.

The statuses are R4's (value sets diagnostic-report-status and observation-status):

- `preliminary` until a person verifies; a new revision of what no person verified is `amended`, as it replaces.
- accepted: `final`. Where it was final before and has changed since, it stays `amended`: R4 knows no way back.
- corrected: the report and the corrected Observation are `amended`; what was left as it was becomes `final`.
- rejected: `entered-in-error`, the report and all its Observations.
- processed anew after a person verified: `amended`, for a report that was final cannot become preliminary again (R4
  5.3.5, 'subsequent to being final'). The person's word is not lost under it: the verified version stays in the
  history, the Provenance of the new one names it as what it revises, and the conclusion says that a person verified
  the earlier result, and that this one is not verified.
- processed anew after a person rejected: `preliminary`. What was withdrawn is withdrawn, nothing final stands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fhir_facade.codes import AI_ASSERTED
from fhir_facade.resource import Json, clean, present
from fhir_facade.timing import instant
from gateway.report.figures import percent
from gateway.report.wording import ENGLISH, Key, Wording, closing_sentences
from gateway.verification.verdict import Observer, Verification

_CLINICIAN_ASSERTED: Json = AI_ASSERTED | {"code": "CLINAST", "display": "clinician asserted"}
_RELEASED = frozenset({"final", "amended", "corrected"})


@dataclass(frozen=True, slots=True, eq=False)
class Standing:
    """What persons have said, up to and with the revision that is written."""

    now: Verification | None
    """What made this revision; None: an algorithm."""
    before: Sequence[Verification | None]
    """Of each done revision before, the oldest first; None: an algorithm's result."""

    @property
    def report_status(self) -> str:
        """The DiagnosticReport's status."""
        if self.now is None:
            return self._unverified_status
        if self.now.action == "reject":
            return "entered-in-error"
        was_corrected = any(word is not None and word.action == "correct" for word in self._said_of_this)
        is_changed = was_corrected or bool(self._released_before)
        return "amended" if is_changed else "final"

    @property
    def corrections(self) -> dict[Key, Mapping[str, Any]]:
        """What persons changed of the algorithm's answers: the latest answer, with what the algorithm had said."""
        changed: dict[Key, Mapping[str, Any]] = {}
        for word in self._said_of_this:
            for each in word.corrections:
                if "answer" in each:
                    key = (each["ordinal"], each["id"])
                    first = changed.get(key, each)
                    changed[key] = {**each, "was": first["was"], "probability": first["probability"], "by": word}
        return changed

    def observation(self, content: Json, key: Key | None, current_status: str | None) -> Json:
        """Return an Observation with its status and, where a person had a say, who and what.

        Parameters
        ----------
        content
            As the algorithm's.
        key
            Of the finding that it tells; None for a measurement.
        current_status
            Of the version that stands; None where there is none.
        """
        if self.now is None:
            is_released = current_status in _RELEASED
            return content | {"status": "amended" if is_released else "preliminary"}
        if self.now.action == "reject":
            return content | {"status": "entered-in-error"}
        correction = self.corrections.get(key) if key is not None else None
        is_amended = correction is not None or (current_status == "amended")
        named = {"performer": [practitioner(self.now.who)], "status": "amended" if is_amended else "final"}
        if correction is None:
            return content | named
        noted = {"meta": {"security": [AI_ASSERTED, _CLINICIAN_ASSERTED]}, "note": [_note(correction)]}
        # Probabilities, uncertainty and label set are not of this answer; they stay in the versions before.
        return {name: value for name, value in content.items() if name != "component"} | named | noted

    def sentences(self, wording: Wording = ENGLISH) -> list[str]:
        """Return what the conclusion says of verification."""
        return closing_sentences(self.now, self._last_word, wording)

    @property
    def _said_of_this(self) -> list[Verification]:
        """What persons said of the latest result of the algorithm, this revision among it."""
        said: list[Verification] = []
        for word in [*self.before, self.now]:
            said = [] if word is None else [*said, word]
        return said

    @property
    def _released_before(self) -> list[Verification]:
        """What persons accepted or corrected of earlier results of the algorithm, since the last rejection."""
        done = self.before
        while done and done[-1] is not None and self.now is not None:
            done = done[:-1]
        released: list[Verification] = []
        for word in done:
            if word is not None:
                released = [] if word.action == "reject" else [*released, word]
        return released

    @property
    def _last_word(self) -> Verification | None:
        return next((word for word in reversed(self.before) if word is not None), None)

    @property
    def _unverified_status(self) -> str:
        last = self._last_word
        if last is not None and last.action == "reject":
            return "preliminary"
        return "amended" if self.before else "preliminary"


def practitioner(who: Observer) -> Json:
    """Return a reference to a person of whom no more than the name is known."""
    return {"type": "Practitioner", "display": clean(who.display)}


def organisation(who: Observer) -> Json:
    """Return a reference to the organisation that a person named."""
    return present({"type": "Organization", "display": clean(who.organisation)})


def _note(correction: Mapping[str, Any]) -> Json:
    word: Verification = correction["by"]
    said = f"Corrected by {word.who.display}. The algorithm's answer: {correction['was']}"
    probability = f" ({percent(correction['probability']):.1f} %)."
    return {
        "authorString": clean(word.who.display),
        "time": instant(word.verified_at),
        "text": clean(said + probability),
    }
