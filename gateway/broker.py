"""The queue of jobs: the `Broker` protocol, and the embedded broker, whose queue is the jobs table itself.

A message is no more than a hint that a job waits: the database is the truth. Messages may come twice (the second claim
fails) and may be lost (the dispatcher publishes again what nobody claimed).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from gateway.job import Priority
from gateway.store import Store
from gateway.store.commits import Commits
from gateway.store.jobs import count_claimable, get_job, next_candidates


@dataclass(frozen=True, slots=True)
class JobMessage:
    """What travels: which job, and the trace that it belongs to."""

    job_id: str
    priority: Priority = "routine"
    trace_context: Mapping[str, str] = field(default_factory=dict)
    """W3C traceparent and tracestate."""


class Received(Protocol):
    """A message in hand; until it is acknowledged or given back, this broker does not hand it out again."""

    @property
    def message(self) -> JobMessage:
        """What came."""

    def ack(self) -> None:
        """Take it off the queue: the job's row says where it stands. Never raises: a lost one is harmless."""

    def requeue(self) -> None:
        """Give it back for another try, by anyone. Never raises: a lost one is harmless."""


class Broker(Protocol):
    """A queue with two priorities; `stat` before `routine`. Safe to use from several threads."""

    def publish(self, message: JobMessage) -> None:
        """Return once the message is kept; BrokerAwayError otherwise."""

    def receive(self, timeout_s: float) -> Received | None:
        """Return the next message, None when none came in time; ServiceAwayError when the queue does not answer."""

    def waiting(self) -> int:
        """Return how many messages wait, those of claimed jobs left out; ServiceAwayError where it does not answer."""

    def close(self) -> None:
        """Give back what is in hand and disconnect."""


@dataclass(frozen=True, slots=True)
class _EmbeddedReceived:
    """A candidate of the jobs table, in the hand of this process."""

    message: JobMessage
    _settle: Callable[[str, bool], None]

    def ack(self) -> None:
        """Forget it: once claimed it is no candidate."""
        self._settle(self.message.job_id, False)

    def requeue(self) -> None:
        """Leave it to others for a moment."""
        self._settle(self.message.job_id, True)


class EmbeddedBroker:
    """The jobs table as the queue; nothing besides the database is needed.

    Parameters
    ----------
    store
        The database.
    poll_s
        Seconds between looks at the table.
    now
        The clock.
    """

    def __init__(
        self, store: Store, poll_s: float = 0.25, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._store = store
        self._poll_s = poll_s
        self._now = now
        self._lock = threading.Lock()
        self._in_hand: set[str] = set()
        self._not_before: dict[str, float] = {}
        self._closed = threading.Event()
        self._commits = Commits(store)

    def publish(self, message: JobMessage) -> None:
        """Do nothing: the row is there, and that is all this queue is."""

    def receive(self, timeout_s: float) -> Received | None:
        """Return the next job that can be claimed and is not in hand."""
        deadline = time.monotonic() + timeout_s
        while not self._closed.is_set():
            message = self._take()
            if message is not None:
                return _EmbeddedReceived(message, self._put_down)
            remaining_s = deadline - time.monotonic()
            if remaining_s <= 0:
                return None
            self._commits.wait(self._closed, min(self._poll_s, remaining_s))
        return None

    def waiting(self) -> int:
        """Return how many jobs can be claimed now."""
        with self._store.read() as connection:
            return count_claimable(connection, self._now())

    def close(self) -> None:
        """Wake those who wait in `receive`."""
        self._closed.set()

    def _take(self) -> JobMessage | None:
        with self._lock:
            held_back = self._held_back()
            with self._store.read() as connection:
                candidates = next_candidates(connection, self._now(), limit=len(held_back) + 1)
                free = next((candidate for candidate in candidates if candidate not in held_back), None)
                if free is None:
                    return None
                job = get_job(connection, free)
            self._in_hand.add(free)
            return JobMessage(free, job.priority, job.trace_context or {})

    def _held_back(self) -> set[str]:
        now = time.monotonic()
        self._not_before = {job_id: until for job_id, until in self._not_before.items() if until > now}
        return self._in_hand | self._not_before.keys()

    def _put_down(self, job_id: str, is_given_back: bool) -> None:
        with self._lock:
            self._in_hand.discard(job_id)
            if is_given_back:
                self._not_before[job_id] = time.monotonic() + self._poll_s
