"""When a study is complete (pure; the clock is passed in)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal


@dataclass(frozen=True, slots=True)
class Complete:
    """Nothing more is expected; what comes later opens a new revision."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """More may come."""

    reason: str
    until: datetime | None
    """When to look again; None: when something happens to the study or its associations."""


def completeness(  # noqa: PLR0913, PLR0917 # the facts that decide, and nothing else
    study_state: Literal["receiving", "routed", "unrouted"],
    open_associations: int,
    last_received_at: datetime,
    announced_count: int | None,
    instance_count: int | None,
    now: datetime,
    quiet_s: float,
) -> Complete | Waiting:
    """Say whether a study is complete.

    It is at once when as many instances are there as were announced, whatever is still open; otherwise when no
    association that carries it is open and nothing came for `quiet_s`. Where more came than were announced, the
    announcement was wrong and says nothing about what else comes.

    Parameters
    ----------
    open_associations
        Associations not closed that carried at least one of its instances.
    announced_count
        Number of Study Related Instances (0020,1208), None or 0 where nothing was announced.
    instance_count
        Current instances; None where nobody counted because nothing was announced.
    quiet_s
        Seconds without a new instance.
    """
    if study_state != "receiving":
        return Waiting(f"it is {study_state} already", None)
    if announced_count and instance_count == announced_count:
        return Complete()
    if open_associations:
        return Waiting(f"{open_associations} open association(s) carry it", None)
    quiet_at = last_received_at + timedelta(seconds=quiet_s)
    if now < quiet_at:
        return Waiting(f"an instance came less than {quiet_s:g} s ago", quiet_at)
    return Complete()
