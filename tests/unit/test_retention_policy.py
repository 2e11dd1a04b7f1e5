"""Which studies go: by age, by size, by state; nothing that is blocked, nothing that is too young."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.retention import Retention
from gateway.retention.policy import GIB, Candidate, Room, decide

NOW = datetime(2026, 3, 2, tzinfo=UTC)
PLENTY = Room(0, 1 << 50)


def candidate(
    uid: str, days: float, *, gib: float = 1, state: str = "routed", blockers: tuple[str, ...] = ()
) -> Candidate:
    """Return a study that came so many days ago."""
    return Candidate(uid, state, NOW - timedelta(days=days), int(gib * GIB), blockers)


def gone(candidates: list[Candidate], rules: Retention, room: Room = PLENTY) -> dict[str, str]:
    """Return the studies that go, with the rule."""
    return {one.study_instance_uid: one.reason for one in decide(candidates, rules, room, NOW) if one.goes}


def test_without_rules_nothing_goes() -> None:
    """However old and large."""
    assert gone([candidate("a", 9999, gib=9999)], Retention(), Room(1 << 60, 0)) == {}


def test_age_goes_by_state() -> None:
    """Studies that nobody wanted may go earlier."""
    rules = Retention(max_age_days=100, max_age_unrouted_days=10)
    those = [candidate("old", 101), candidate("unwanted", 11, state="unrouted"), candidate("young", 11)]

    assert gone(those, rules) == {"old": "older than 100 days", "unwanted": "older than 10 days"}


def test_size_takes_the_oldest_until_there_is_room() -> None:
    """No more than needed; what is blocked makes no room, and is named with what blocks it."""
    those = [candidate("a", 9, blockers=("held",)), candidate("b", 8), candidate("c", 7), candidate("d", 6)]
    decisions = list(decide(those, Retention(max_gib=2.5), Room(4 * GIB, 1), NOW))

    assert [(one.study_instance_uid, one.goes) for one in decisions] == [("a", False), ("b", True), ("c", True)]
    assert decisions[0].blockers == ("held",)
    assert gone(those, Retention(min_free_gib=3), Room(4 * GIB, 2 * GIB)) == {"b": "less than 3 GiB free"}


def test_the_young_stay() -> None:
    """Younger than the least age, a study stays, even where the disk is full."""
    assert gone([candidate("a", 0.5)], Retention(max_gib=0.1, max_age_days=0.1), Room(9 * GIB, 0)) == {}


@pytest.mark.parametrize(
    ("rules", "taken"),
    [
        (Retention(), 1),
        (Retention(max_age_days=50), 3),
        (Retention(max_age_days=50, max_age_unrouted_days=15), 4),
        (Retention(max_gib=2.5), 4),
        (Retention(max_gib=0.1), 5),
    ],
)
def test_no_more_studies_are_looked_at_than_needed(rules: Retention, taken: int) -> None:
    """An archive of a million studies is not read to find the few that have had their time."""
    asked: list[str] = []

    def archive() -> Iterator[Candidate]:
        for uid, days in (("a", 90), ("b", 60), ("c", 20), ("d", 10), ("e", 0.5), ("f", 0.1)):
            asked.append(uid)
            yield candidate(uid, days)

    list(decide(archive(), rules, Room(5 * GIB, 1 << 50), NOW))

    assert len(asked) == taken


@given(
    st.lists(st.tuples(st.floats(0, 50), st.floats(0, 5), st.booleans()), max_size=12),
    st.floats(0.1, 20),
    st.floats(0.1, 40),
)
def test_rules_by_size_never_overshoot(those: list[tuple[float, float, bool]], limit: float, age: float) -> None:
    """What goes is unblocked and old enough, and without the last one that goes the limit would be broken."""
    made = [
        candidate(str(number), days, gib=gib, blockers=("held",) if is_held else ())
        for number, (days, gib, is_held) in enumerate(sorted(those, reverse=True))
    ]
    used = sum(one.size_bytes for one in made)
    decisions = list(decide(made, Retention(max_gib=limit, min_age_hours=age * 24), Room(used, 1), NOW))
    going = [one for one in decisions if one.goes]

    assert all(NOW - one.last_received_at >= timedelta(days=age) for one in decisions)
    assert not any(one.blockers for one in going)
    if going:
        assert used - sum(one.size_bytes for one in going[:-1]) > limit * GIB
