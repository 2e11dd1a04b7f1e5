"""A result in words, in English and in Chinese: what reports, documents and FHIR say alike."""

# ruff: noqa: RUF001 # full-width punctuation is right in Chinese

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from gateway.report.figures import number, percent
from gateway.terms_zh import REASONS, TERMS
from gateway.verification.verdict import Verification
from inference.findings import Finding, NotEvaluable, Outcome, Segment

_SHOWN_PER_SEGMENT = 3
Key = tuple[int, str]
"""Ordinal of the outcome and tracking identifier of the finding."""


@dataclass(frozen=True, slots=True)
class Wording:
    """The sentences of one language."""

    tag: str
    """BCP 47."""
    sentences: Mapping[str, str]
    comma: str
    terms: Mapping[str, str] = field(default_factory=dict)
    """English words in lower case -> this language."""
    reasons: Mapping[str, str] = field(default_factory=dict)

    def term(self, words: str) -> str:
        """Return words that came with a result in this language; as they stand where they are not known."""
        return self.terms.get(words.lower(), words)

    def say(self, key: str, **values: object) -> str:
        """Return a sentence with its values in place."""
        return self.sentences[key].format(**values)

    def reason(self, outcome: NotEvaluable) -> str:
        """Return why a study was not evaluable."""
        return self.reasons.get(f"reason.{outcome.code}", outcome.reason)


ENGLISH: Final = Wording(
    tag="en",
    sentences={
        "not-evaluable": "{name}: not evaluable: {reason}",
        "answers": "{name}: {answers}.",
        "answer": "{answer} ({percent:.0f} %)",
        "corrected": "{answer} (corrected)",
        "measured": "{name}: {segment}: {values}.",
        "value": "{quantity} {value} {unit}",
        "no-number": "no value is a number",
        "nothing": "{name}: nothing found.",
        "unverified": "Result of an algorithm, not verified by a person.",
        "earlier": "An earlier result was {said} by {who}, {organisation}, {day}.",
        "now": "Result of an algorithm, {said} by {who}, {organisation}, {day}.",
        "comment": "{told} Comment: {comment}",
        "accept": "verified and accepted",
        "correct": "verified and corrected",
        "reject": "rejected",
    },
    comma=", ",
)
CHINESE: Final = Wording(
    tag="zh",
    sentences={
        "not-evaluable": "{name}:无法评估:{reason}",
        "answers": "{name}:{answers}。",
        "answer": "{answer}（{percent:.0f} %）",
        "corrected": "{answer}（已更正）",
        "measured": "{name}:{segment}:{values}。",
        "value": "{quantity} {value} {unit}",
        "no-number": "没有可用的数值",
        "nothing": "{name}:未见异常报告。",
        "unverified": "算法结果,未经人工核实。",
        "earlier": "先前的结果于 {day} 由 {who}（{organisation}）{said}。",
        "now": "算法结果,于 {day} 由 {who}（{organisation}）{said}。",
        "comment": "{told}备注:{comment}",
        "accept": "核实并接受",
        "correct": "核实并更正",
        "reject": "驳回",
    },
    comma="、",
    terms=TERMS,
    reasons=REASONS,
)
LANGUAGES: Final = (ENGLISH, CHINESE)


def conclusion(
    outcomes: Sequence[Outcome],
    closing: Sequence[str],
    corrected: Collection[Key] = (),
    wording: Wording = ENGLISH,
) -> str:
    """Return the result in words: the answers, the measurements, or why there are none; and whether it is verified.

    Parameters
    ----------
    closing
        Sentences on who verified it, in the same language.
    corrected
        Answers that are a person's: the algorithm's probability is not theirs.
    """
    sentences = [
        sentence
        for ordinal, outcome in enumerate(outcomes)
        for sentence in _sentences(outcome, {name for at, name in corrected if at == ordinal}, wording)
    ]
    return "\n".join([*dict.fromkeys(sentences), *closing])


def closing_sentences(
    now: Verification | None, earlier: Verification | None = None, wording: Wording = ENGLISH
) -> list[str]:
    """Return what is said of verification.

    Parameters
    ----------
    now
        A person's word that made this revision; None: it is an algorithm's.
    earlier
        The last word on an earlier revision.
    """
    if now is not None:
        return [_told(now, "now", wording)]
    return [*([_told(earlier, "earlier", wording)] if earlier else []), wording.say("unverified")]


def label_set_words(finding: Finding) -> str | None:
    """Return the classes among which the true one is, and how surely; None where the model states no coverage."""
    if finding.label_set is None:
        return None
    meanings = {each.name: each.code.meaning for each in finding.alternatives}
    names = ", ".join(meanings.get(name, name) for name in finding.label_set.names)
    share = f"{100 * finding.label_set.coverage:g} %"
    return f"By the algorithm one of: {names}. So it is in {share} of cases like those of its calibration."


def unit_words(unit: str, wording: Wording) -> str:
    """Return a UCUM unit as people write it."""
    return wording.term(unit) if wording.terms else {"[hnsf'u]": "HU"}.get(unit.lower(), unit)


def _sentences(outcome: Outcome, corrected: Collection[str], wording: Wording) -> Iterator[str]:
    name = f"{outcome.algorithm.name} {outcome.algorithm.version}"
    if isinstance(outcome, NotEvaluable):
        yield wording.say("not-evaluable", name=name, reason=wording.reason(outcome))
        return
    if outcome.findings:
        answers = (
            wording.say(
                "corrected" if each.tracking_id in corrected else "answer",
                answer=wording.term(each.answer.code.meaning),
                percent=percent(each.answer.probability),
            )
            for each in outcome.findings
        )
        yield wording.say("answers", name=name, answers=wording.comma.join(answers))
    for segment in outcome.segments:
        if segment.measurements:
            values = _measured(segment, wording)
            yield wording.say("measured", name=name, segment=wording.term(segment.label), values=values)
    if not outcome.findings and not any(segment.measurements for segment in outcome.segments):
        yield wording.say("nothing", name=name)


def _measured(segment: Segment, wording: Wording) -> str:
    finite = [each for each in segment.measurements if math.isfinite(each.value)]
    shown = (
        wording.say(
            "value",
            quantity=wording.term(each.quantity.meaning),
            value=number(each.value),
            unit=unit_words(each.unit.value, wording),
        )
        for each in finite[:_SHOWN_PER_SEGMENT]
    )
    return wording.comma.join(shown) or wording.say("no-number")


def _told(word: Verification, key: str, wording: Wording) -> str:
    told = wording.say(
        key,
        said=wording.say(word.action),
        who=word.who.display,
        organisation=word.organisation,
        day=word.verified_at.date().isoformat(),
    )
    return wording.say("comment", told=told, comment=word.comment) if word.comment else told
