"""Corrected answers and removed segments, worked into the outcomes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from gateway.report.summary import read_outcomes, summarise
from gateway.verification.corrections import Changes, correct, told
from gateway.verification.verdict import VerdictError, read_verdict
from inference.findings import Findings, NotEvaluable, Outcome
from tests.unit.report.outcomes import ALGORITHM, findings_of_two_levels, xray_findings


def _with_parents() -> Findings:
    """Give the two levels with what each class is a kind of."""
    coarse, fine = findings_of_two_levels()
    classes = tuple(replace(each, parent="pneumonia") for each in fine.alternatives)
    answer = next(each for each in classes if each.name == fine.answer.name)
    return replace(xray_findings(), findings=(coarse, replace(fine, alternatives=classes, answer=answer)))


def _correct(
    outcomes: Sequence[Outcome], fields: dict[str, str], action: str = "correct"
) -> tuple[tuple[Any, ...], tuple[Changes, ...]]:
    return correct(outcomes, read_verdict({"job_id": "j", "action": action, "observer": "A B", **fields}))


def test_a_corrected_answer_keeps_the_algorithms_probability() -> None:
    """The person's class, with what the algorithm gave it; what was said before is told."""
    (outcome,), (changes,) = _correct([_with_parents()], {"class:0:fine": "viral", "class:0:coarse": "pneumonia"})

    assert [each.answer.name for each in outcome.findings] == ["pneumonia", "viral"]
    assert outcome.findings[1].answer.probability == 0.345679
    assert [each.was.name for each in changes.answers] == ["bacterial"]
    assert list(told([changes])) == [
        {"ordinal": 0, "id": "fine", "answer": "viral", "was": "bacterial", "probability": 0.654321}
    ]


@pytest.mark.parametrize("outcome", [_with_parents(), replace(xray_findings(), findings=findings_of_two_levels())])
def test_what_stands_below_a_changed_answer_goes(outcome: Findings) -> None:
    """'Normal' takes 'bacterial' with it, whether or not the classes tell what they are a kind of."""
    fields = {"class:0:coarse": "normal", "class:0:fine": "bacterial"}

    (corrected,), (changes,) = _correct([outcome], fields)

    assert [each.answer.name for each in corrected.findings] == ["normal"]
    assert [each.tracking_id for each in changes.withdrawn] == ["fine"]


def test_segments_that_stay_are_numbered_anew() -> None:
    """Segment numbers start at 1 without a gap; tracking identifiers stay."""
    (outcome,), (changes,) = _correct([_with_parents()], {"remove:0:1": "1"})

    assert [(each.number, each.tracking_id) for each in outcome.segments] == [(1, "lung-right")]
    assert [each.tracking_id for each in changes.removed] == ["lung-left"]


@pytest.mark.parametrize(
    ("fields", "action", "said"),
    [
        ({"class:0:coarse": "normal", "class:0:fine": "viral"}, "correct", "does not go with the level above"),
        ({"class:0:fine": "fungal"}, "correct", "expected one of bacterial, viral"),
        ({"class:0:sex": "x"}, "correct", "no such finding"),
        ({"class:1:fine": "viral"}, "correct", "no such finding"),
        ({"remove:0:3": "1"}, "correct", "no such segment"),
        ({}, "correct", "nothing is corrected"),
        ({"class:0:fine": "bacterial"}, "correct", "nothing is corrected"),
        ({"class:0:fine": "viral"}, "accept", "choose correct"),
        ({"remove:0:1": "1"}, "accept", "choose correct"),
    ],
)
def test_what_does_not_fit_is_refused(fields: dict[str, str], action: str, said: str) -> None:
    """Each with a sentence that says what to do."""
    with pytest.raises(VerdictError, match=said):
        _correct([_with_parents()], fields, action)


def test_what_was_not_evaluable_can_be_accepted_and_not_corrected() -> None:
    """There is nothing in it to correct; the findings of the other outcome keep their ordinal."""
    withheld = NotEvaluable(ALGORITHM, "projection", "lateral view")

    outcomes, changes = _correct([withheld], {}, "accept")
    assert outcomes == (withheld,)
    assert not any(changes)

    (_, second), _ = _correct([withheld, _with_parents()], {"class:1:fine": "viral"})
    assert second.findings[1].answer.name == "viral"


def test_a_summary_is_enough_to_correct() -> None:
    """What the database keeps of an outcome reads back to the same findings, segments and measurements."""
    (read,) = read_outcomes(summarise([_with_parents()]), ALGORITHM)

    assert isinstance(read, Findings)
    bare = [replace(each, is_positive=None) for each in read.findings[1].alternatives]
    assert tuple(bare) == _with_parents().findings[1].alternatives
    assert [each.tracking_id for each in read.segments] == ["lung-left", "lung-right"]
    assert read.segments[1].measurements == _with_parents().segments[1].measurements
    assert str(read.segments[0].measurements[1].value) == "nan"
