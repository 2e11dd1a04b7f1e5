"""What others left behind: jobs of dead workers, lost messages, associations of dead receivers, a clock set back."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta

import structlog

from gateway.broker import Broker
from gateway.errors import BrokerAwayError
from gateway.services import GONE_S, Counters
from gateway.store import Store
from gateway.store.clock_steps import newest_beat, pull_back
from gateway.store.jobs import count_stale, requeue_expired, requeue_stale
from gateway.store.outbox import forget_published
from gateway.store.services import forget_before
from gateway.store.studies import close_lost_associations
from gateway.store.workitem_events import forget_stale_events

log = structlog.get_logger()

_KEEP = timedelta(days=1)
_GONE = timedelta(seconds=GONE_S)
_LONGEST_GAP = timedelta(seconds=GONE_S / 2)
_STEP = timedelta(seconds=2)
"""By how much a clock is set back before it matters."""
_SKEW = timedelta(minutes=1)
"""By how much the clocks of hosts may differ: what an earlier process wrote tells of no smaller step."""


class Sweeper:
    """Puts right what died half-way; several may run at once.

    Parameters
    ----------
    store
        The database.
    broker
        Asked how many messages wait.
    counters
        Counts what was put right.
    max_attempts
        Tries of a job.
    stale_after
        Age of a published message whose job still waits, after which it may be lost.
    monotonic
        Seconds of a clock that nobody sets.
    """

    def __init__(  # noqa: PLR0913, PLR0917 # its parts
        self,
        store: Store,
        broker: Broker,
        counters: Counters,
        max_attempts: int,
        stale_after: timedelta,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._broker = broker
        self._counters = counters
        self._max_attempts = max_attempts
        self._stale_after = stale_after
        self._last_sweep: datetime | None = None
        self._sweeping_since: datetime | None = None
        self._monotonic = monotonic
        self._last_look: tuple[datetime, float] | None = None

    def sweep(self, now: datetime) -> None:
        """Look for all of it once; ServiceAwayError where the database is away."""
        self._follow_clock(now)
        self._take_jobs_of_dead_workers(now)
        self._close_associations_of_dead_receivers(now)
        self._replace_lost_messages(now)
        with self._store.write() as connection:
            forget_published(connection, now - _KEEP)
            forget_before(connection, now - _KEEP)
            forget_stale_events(connection, now - _KEEP)

    def _follow_clock(self, now: datetime) -> None:
        """Where the clock was set back, let nothing wait until it has caught up."""
        seconds = self._monotonic()
        back = self._set_back(now, seconds)
        if back > timedelta():
            with self._store.write() as connection:
                rows = pull_back(connection, now, back)
            self._sweeping_since = now
            log.warning("sweeper.clock_set_back", seconds=round(back.total_seconds(), 1), rows=rows)
            self._counters.add("hybridmed_clock_set_back_total")
        self._last_look = now, seconds

    def _set_back(self, now: datetime, seconds: float) -> timedelta:
        """Return by how much the clock was set back since the last look, or before the first one."""
        if self._last_look is not None:
            last, then = self._last_look
            back = last + timedelta(seconds=seconds - then) - now
            return back if back > _STEP else timedelta()
        with self._store.read() as connection:
            newest = newest_beat(connection)
        # Heartbeats are kept for a day: one that lies further ahead was not written by a clock that was only wrong.
        return newest - now if newest is not None and _SKEW < newest - now < _KEEP else timedelta()

    def _take_jobs_of_dead_workers(self, now: datetime) -> None:
        with self._store.write() as connection:
            taken = requeue_expired(connection, now, self._max_attempts)
        self._tell("lease_expired", "hybridmed_jobs_lease_expired_total", taken)

    def _close_associations_of_dead_receivers(self, now: datetime) -> None:
        # Where nobody could write heartbeats for a while (we have just started, or the database was away), silence
        # says nothing about a receiver: it gets the time to beat again and to index what it had on disk.
        if self._last_sweep is None or now - self._last_sweep > _LONGEST_GAP:
            self._sweeping_since = now
        self._last_sweep = now
        if self._sweeping_since is None or now - self._sweeping_since < _GONE:
            return
        with self._store.write() as connection:
            closed = close_lost_associations(connection, now - _GONE, now)
        self._tell("association_lost", "hybridmed_associations_lost_total", closed)

    def _replace_lost_messages(self, now: datetime) -> None:
        with self._store.read() as connection:
            stale = count_stale(connection, now, self._stale_after)
        if not stale:
            return
        try:
            if self._broker.waiting() >= stale:
                return  # a backlog: every job's message is there, its turn has not come
        except BrokerAwayError:
            return  # the relay says so, and what it holds is not lost yet
        with self._store.write() as connection:
            written = requeue_stale(connection, now, self._stale_after)
        self._tell("message_lost", "hybridmed_messages_lost_total", written)

    def _tell(self, event: str, counter: str, count: int) -> None:
        if count:
            log.warning(f"sweeper.{event}", count=count)
            self._counters.add(counter, count)
