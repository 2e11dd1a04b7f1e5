"""When a study is complete."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gateway.study import Complete, Waiting, completeness

NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)


def ask(**facts: Any) -> Complete | Waiting:
    """Ask about a study received at noon, ten seconds quiet, unless told otherwise."""
    usual: dict[str, Any] = {
        "study_state": "receiving",
        "open_associations": 0,
        "last_received_at": NOON,
        "announced_count": None,
        "instance_count": None,
        "now": NOON + timedelta(seconds=10),
        "quiet_s": 10.0,
    }
    return completeness(**usual | facts)


def test_a_quiet_study_without_open_associations_is_complete() -> None:
    """Ten seconds of silence are enough, to the moment."""
    assert ask() == Complete()


def test_a_study_that_just_received_waits_until_it_was_quiet_long_enough() -> None:
    """The answer says when to look again."""
    answer = ask(now=NOON + timedelta(seconds=9.9))

    assert isinstance(answer, Waiting)
    assert answer.until == NOON + timedelta(seconds=10)


def test_an_open_association_holds_a_study_however_long_it_is_silent() -> None:
    """A timer alone would call it complete while a series is still arriving."""
    answer = ask(open_associations=1, now=NOON + timedelta(hours=2))

    assert answer == Waiting("1 open association(s) carry it", None)


def test_the_announced_count_completes_at_once() -> None:
    """Neither silence nor the end of the association is waited for."""
    assert ask(announced_count=300, instance_count=300, open_associations=1, now=NOON) == Complete()


def test_more_than_announced_complete_by_silence() -> None:
    """An announcement that was wrong says nothing: else each instance that comes late would be a revision."""
    assert isinstance(ask(announced_count=300, instance_count=301, now=NOON), Waiting)
    assert ask(announced_count=300, instance_count=301) == Complete()


def test_fewer_than_announced_complete_by_silence_all_the_same() -> None:
    """A sender that announces more than it sends does not hold the study for ever."""
    assert isinstance(ask(announced_count=300, instance_count=299, now=NOON), Waiting)
    assert ask(announced_count=300, instance_count=299) == Complete()


def test_an_announced_count_of_zero_says_nothing() -> None:
    """Some senders fill the element with 0."""
    assert isinstance(ask(announced_count=0, instance_count=0, now=NOON), Waiting)


@pytest.mark.parametrize("state", ["routed", "unrouted"])
def test_a_study_that_was_dispatched_is_not_completed_again(state: str) -> None:
    """Only a late instance makes it 'receiving' again."""
    assert ask(study_state=state) == Waiting(f"it is {state} already", None)
