"""What shows a fault at each place where an operator looks: the very sign of this fault, not just any trouble."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tests.acceptance.faults.site import RESERVE_MIB

SILENT = "does not answer"
"""What stands for an answer of /readyz that does not come."""
Sample = tuple[str, Mapping[str, str], float]
Metric = Callable[[Sequence[Sample], Sequence[Sample]], bool]
"""Takes the samples from before the fault and those of now, none where /metrics does not answer; says whether now is
what an alert on this fault would look at."""


@dataclass(frozen=True, slots=True)
class Sign:
    """What must be seen while a fault lasts; None where it need not show."""

    ready: str | None
    """Regular expression: a part of /readyz that is not ready, as 'name: reason', holds it."""
    metric: Metric | None
    doctor: str | None
    """The same of a check of the doctor that is not ok, as 'part: found'."""


def is_at(value: float, name: str, **labels: str) -> Metric:
    """Return whether a sample has a value now, and none had it before."""

    def has(samples: Sequence[Sample]) -> bool:
        return any(each == value for each in _values(samples, name, labels))

    return lambda before, now: has(now) and not has(before)


def grows(name: str, **labels: str) -> Metric:
    """Return whether a counter, over all processes, is more than it was before."""
    return lambda before, now: sum(_values(now, name, labels)) > sum(_values(before, name, labels))


def is_short_of_disk(_before: Sequence[Sample], now: Sequence[Sample]) -> bool:
    """Say whether less is free than the reserve."""
    return any(value < RESERVE_MIB << 20 for value in _values(now, "hybridmed_disk_free_bytes", {}))


def is_slow_at_sending(before: Sequence[Sample], now: Sequence[Sample]) -> bool:
    """Say whether deliveries took longer than two and a half seconds."""

    def slow(samples: Sequence[Sample]) -> float:
        name = "hybridmed_delivery_seconds"
        return sum(_values(samples, f"{name}_count", {})) - sum(_values(samples, f"{name}_bucket", {"le": "2.5"}))

    return slow(now) > slow(before)


def is_unpublished(before: Sequence[Sample], now: Sequence[Sample]) -> bool:
    """Say whether messages wait while the role that publishes them is not ready."""
    is_held = is_at(0, "hybridmed_role_up", role="dispatch")(before, now)
    return is_held and sum(_values(now, "hybridmed_outbox_unpublished", {})) > 0


def is_silent(before: Sequence[Sample], now: Sequence[Sample]) -> bool:
    """Say whether /metrics does not answer, for which Prometheus has an alert of its own, or has given up waiting."""
    return not now or is_at(0, "hybridmed_database_up")(before, now)


def is_without_roles(before: Sequence[Sample], now: Sequence[Sample]) -> bool:
    """Say whether a role is gone that was there."""

    def roles(samples: Sequence[Sample]) -> set[str]:
        return {labels["role"] for name, labels, _ in samples if name == "hybridmed_role_up"}

    return bool(now) and not roles(before) <= roles(now)


def matches(pattern: str, lines: Sequence[str]) -> bool:
    """Say whether a line holds what is looked for."""
    return any(re.search(pattern, line) for line in lines)


def _values(samples: Sequence[Sample], name: str, labels: Mapping[str, str]) -> list[float]:
    return [value for each, its, value in samples if each == name and labels.items() <= its.items()]


DATABASE_AWAY = Sign("^database: ", is_at(0, "hybridmed_database_up"), "^database")
DATABASE_SILENT = Sign(f"{SILENT}|^database: ", is_silent, None)  # the doctor waits for the database as well
BROKER_AWAY = Sign("^broker: ", is_unpublished, "^broker: ")
BROKER_BLOCKS = Sign("^role dispatch: .*broker", is_unpublished, "^role dispatch: .*broker")
