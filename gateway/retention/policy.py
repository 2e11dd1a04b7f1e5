"""Which studies go, and why (pure; sizes and the clock are passed in)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from gateway.config.retention import Retention

GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Candidate:
    """A study as the rules see it."""

    study_instance_uid: str
    state: str
    last_received_at: datetime
    size_bytes: int
    """Of its instances and results."""
    blockers: tuple[str, ...] = ()
    """Why it is not removed, whatever the rules say."""


@dataclass(frozen=True, slots=True)
class Room:
    """What the disk holds."""

    used_bytes: int
    """All instances and results; counts only where a rule asks for it."""
    free_bytes: int
    """Of the disk."""


@dataclass(frozen=True, slots=True)
class Decision:
    """A study that the rules want removed."""

    study_instance_uid: str
    last_received_at: datetime
    size_bytes: int
    reason: str
    """The rule."""
    blockers: tuple[str, ...]
    """Why it stays all the same; empty: it goes."""

    @property
    def goes(self) -> bool:
        """Whether it is removed."""
        return not self.blockers


def decide(candidates: Iterable[Candidate], rules: Retention, room: Room, now: datetime) -> Iterator[Decision]:
    """Yield what the rules want removed, the oldest first; what is to make room is counted as it goes.

    Parameters
    ----------
    candidates
        The oldest first; no more are taken than up to the first that is too young for any rule.
    """
    used, free = room.used_bytes, room.free_bytes
    for one in candidates:
        reason = _reason(one, rules, used, free, now)
        if reason is None:
            if _ends(one, rules, used, free, now):
                return
            continue
        if not one.blockers:
            used -= one.size_bytes
            free += one.size_bytes
        yield Decision(one.study_instance_uid, one.last_received_at, one.size_bytes, reason, one.blockers)


def _reason(one: Candidate, rules: Retention, used: int, free: int, now: datetime) -> str | None:
    age = now - one.last_received_at
    if age < timedelta(hours=rules.min_age_hours):
        return None
    days = rules.max_age_days
    if one.state == "unrouted" and rules.max_age_unrouted_days is not None:
        days = rules.max_age_unrouted_days
    if days is not None and age > timedelta(days=days):
        return f"older than {days:g} days"
    return _size_reason(rules, used, free)


def _ends(one: Candidate, rules: Retention, used: int, free: int, now: datetime) -> bool:
    """Say whether the rules want neither this study nor any younger one."""
    age = now - one.last_received_at
    if age < timedelta(hours=rules.min_age_hours):
        return True
    limits = [days for days in (rules.max_age_days, rules.max_age_unrouted_days) if days is not None]
    return all(age <= timedelta(days=days) for days in limits) and _size_reason(rules, used, free) is None


def _size_reason(rules: Retention, used: int, free: int) -> str | None:
    if rules.max_gib is not None and used > rules.max_gib * GIB:
        return f"more than {rules.max_gib:g} GiB kept"
    if rules.min_free_gib is not None and free < rules.min_free_gib * GIB:
        return f"less than {rules.min_free_gib:g} GiB free"
    return None
