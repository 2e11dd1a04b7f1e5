"""Corrected answers and removed segments, worked into the outcomes (pure)."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gateway.verification.verdict import Corrections, Verdict, VerdictError
from inference.findings import ClassProbability, Finding, Findings, Outcome, Segment


@dataclass(frozen=True, slots=True)
class Answer:
    """A finding whose answer is the person's."""

    finding: Finding
    """As it stands now; `answer` is what the person says, with the algorithm's probability for it."""
    was: ClassProbability
    """What was answered before."""


@dataclass(frozen=True, slots=True, eq=False)
class Changes:
    """What a verification changes in one outcome."""

    answers: tuple[Answer, ...] = ()
    withdrawn: tuple[Finding, ...] = ()
    """Findings below an answer that no longer stands."""
    removed: tuple[Segment, ...] = ()
    removed_from: tuple[Segment, ...] = ()
    """All segments that there were."""

    def __bool__(self) -> bool:
        """Say whether there are any."""
        return bool(self.answers or self.withdrawn or self.removed)


def correct(outcomes: Sequence[Outcome], verdict: Verdict) -> tuple[tuple[Outcome, ...], tuple[Changes, ...]]:
    """Return the outcomes as the person says they are, and what that changes in each.

    A form sends an answer for each finding, most of them as they were. Where an answer is no longer possible below
    the new one above it, the finding is withdrawn if the person left it as it was, and refused if not.

    Raises
    ------
    VerdictError
        A correction names what is not there, contradicts another, or stands beside another action than 'correct';
        'correct' without any.
    """
    _require_known(outcomes, verdict.corrections)
    found = [_correct_one(ordinal, outcome, verdict.corrections) for ordinal, outcome in enumerate(outcomes)]
    is_changed = any(changes for _, changes in found)
    if verdict.action == "correct" and not is_changed:
        raise VerdictError("nothing is corrected: change an answer or remove a segment, or choose accept")
    if verdict.action == "accept" and is_changed:
        raise VerdictError("answers were changed or segments removed: choose correct, or take the changes back")
    if verdict.action == "reject":
        return tuple(outcomes), tuple(Changes() for _ in outcomes)
    return tuple(outcome for outcome, _ in found), tuple(changes for _, changes in found)


def told(changes: Sequence[Changes]) -> Iterator[Mapping[str, Any]]:
    """Yield what was changed, for the job's row."""
    for ordinal, each in enumerate(changes):
        for answer in each.answers:
            yield {
                "ordinal": ordinal,
                "id": answer.finding.tracking_id,
                "answer": answer.finding.answer.name,
                "was": answer.was.name,
                "probability": answer.was.probability,
            }
        for finding in each.withdrawn:
            yield {
                "ordinal": ordinal,
                "id": finding.tracking_id,
                "answer": None,
                "was": finding.answer.name,
                "probability": finding.answer.probability,
            }
        for segment in each.removed:
            yield {"ordinal": ordinal, "id": segment.tracking_id, "segment": segment.number, "is_removed": True}


def _require_known(outcomes: Sequence[Outcome], corrections: Corrections) -> None:
    evaluated = {ordinal: each for ordinal, each in enumerate(outcomes) if isinstance(each, Findings)}
    findings = {(ordinal, each.tracking_id) for ordinal, one in evaluated.items() for each in one.findings}
    segments = {(ordinal, each.number) for ordinal, one in evaluated.items() for each in one.segments}
    for ordinal, name in corrections.answers:
        if (ordinal, name) not in findings:
            raise VerdictError(f"class:{ordinal}:{name[:64]}: the result has no such finding")
    for ordinal, number in corrections.removed:
        if (ordinal, number) not in segments:
            raise VerdictError(f"remove:{ordinal}:{number}: the result has no such segment")


def _correct_one(ordinal: int, outcome: Outcome, corrections: Corrections) -> tuple[Outcome, Changes]:
    if not isinstance(outcome, Findings):
        return outcome, Changes()
    kept: dict[str, Finding] = {}
    answers: list[Answer] = []
    withdrawn: list[Finding] = []
    for finding in outcome.findings:  # the levels above come first
        wanted = corrections.answers.get((ordinal, finding.tracking_id), finding.answer.name)
        given = _class(finding, wanted)
        changed = {each.finding.tracking_id for each in answers}
        if not _is_possible(given, finding, kept, changed):
            if given.name != finding.answer.name:
                raise VerdictError(f"class:{ordinal}:{finding.tracking_id}: {wanted} does not go with the level above")
            withdrawn.append(finding)
            continue
        kept[finding.tracking_id] = replace(finding, answer=given)
        if given.name != finding.answer.name:
            answers.append(Answer(kept[finding.tracking_id], finding.answer))
    removed = tuple(each for each in outcome.segments if (ordinal, each.number) in corrections.removed)
    corrected = replace(outcome, findings=tuple(kept.values()), segments=_without(outcome.segments, removed))
    return corrected, Changes(tuple(answers), tuple(withdrawn), removed, outcome.segments)


def _without(segments: tuple[Segment, ...], removed: Sequence[Segment]) -> tuple[Segment, ...]:
    """Return the segments that stay, numbered anew from 1 without a gap (PS3.3 C.8.20.2, Segment Number)."""
    gone = {each.number for each in removed}
    numbers = {number: new for new, number in enumerate(sorted({s.number for s in segments} - gone), start=1)}
    return tuple(replace(each, number=numbers[each.number]) for each in segments if each.number in numbers)


def _class(finding: Finding, name: str) -> ClassProbability:
    found = next((each for each in finding.alternatives if each.name == name), None)
    if found is None:
        names = ", ".join(each.name for each in finding.alternatives)
        raise VerdictError(f"class of {finding.tracking_id}: expected one of {names}")
    return found


def _is_possible(
    given: ClassProbability, finding: Finding, kept: Mapping[str, Finding], changed: Collection[str]
) -> bool:
    """Say whether an answer goes with the one above it; where the class does not tell, only if that one stays."""
    if finding.parent_id is None:
        return True
    above = kept.get(finding.parent_id)
    if above is None:
        return False
    return above.tracking_id not in changed if given.parent is None else given.parent == above.answer.name
