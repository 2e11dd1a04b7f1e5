"""A job: one bundle over one study. Its states and the transitions between them (pure)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Literal

from gateway.errors import ConflictError

Priority = Literal["stat", "routine"]


class State(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    """Results are committed, 'not evaluable' among them."""
    DEAD = "dead"
    """Given up, with the reason; `hybridmed dead retry` queues it again."""
    CANCELLED = "cancelled"


ALLOWED: dict[State, frozenset[State]] = {
    State.QUEUED: frozenset({State.RUNNING, State.CANCELLED, State.DEAD}),
    State.RUNNING: frozenset({State.DONE, State.QUEUED, State.DEAD, State.CANCELLED}),
    State.DONE: frozenset(),
    State.DEAD: frozenset({State.QUEUED, State.CANCELLED}),
    State.CANCELLED: frozenset(),
}
"""What may follow each state; nothing follows DONE: a reprocess is another job with the next revision."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A job held under a lease."""

    job_id: str
    study_instance_uid: str
    study_revision: int
    bundle: str
    revision: int
    priority: Priority
    destinations: tuple[str, ...]
    attempt: int
    """From 1."""
    owner: str
    """Who holds the lease; unique to this claim, so that a worker that lost and regained a job cannot mix them up."""
    lease_expires_at: datetime
    device_losses: int = 0
    """Earlier tries, not among `attempt`, on which the worker lost its device."""


def require_transition(job_id: str, present: State, wanted: State) -> None:
    """Raise ConflictError where `wanted` may not follow the present state."""
    if wanted not in ALLOWED[present]:
        raise ConflictError(f"job {job_id} is {present}: it cannot become {wanted}")


def retry_delay(attempt: int, first: timedelta, limit: timedelta) -> timedelta:
    """Return the wait after a failed try: doubles from `first`, at most `limit`.

    Parameters
    ----------
    attempt
        Number of tries made, from 1.
    """
    return min(first * (1 << min(attempt - 1, 30)), limit)
