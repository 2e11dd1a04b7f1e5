"""Jobs that leave the worker without a result: tried again, given back or given up, as the database then says."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import structlog
from sqlalchemy.engine import Connection

from gateway.errors import DatabaseAwayError
from gateway.job import Claim, retry_delay
from gateway.place import place
from gateway.store import Store, jobs
from gateway.store.results import count_device_loss, forgive_attempt
from gateway.worker.failure import describe, is_of_disk, may_pass
from gateway.worker.model import Limits
from inference.errors import DeviceError

log = structlog.get_logger()


class Unfinished:
    """Writes what becomes of jobs; where the database is away their leases run out, and the dispatcher queues them.

    Parameters
    ----------
    store, now
        The database and the clock.
    limits
        How often and when a job is tried.
    count
        Hears of each job: 'jobs_retried', 'jobs_dead', and its bundle.
    away
        Hears that the database is away.
    """

    def __init__(
        self,
        store: Store,
        now: Callable[[], datetime],
        limits: Limits,
        count: Callable[[str, str], None],
        away: Callable[[DatabaseAwayError], None],
    ) -> None:
        self._store = store
        self._now = now
        self._limits = limits
        self._count = count
        self._away = away

    def failed(self, claim: Claim, error: Exception) -> None:
        """Say that a try failed."""
        reason = describe(error)
        is_last = claim.attempt >= self._limits.max_attempts and not is_of_disk(error)
        will_retry = may_pass(error) and not is_last
        log.warning("job.failed", job_id=claim.job_id, reason=reason, place=place(error), will_retry=will_retry)

        def write(connection: Connection) -> None:
            if will_retry:
                is_released = self._release(connection, claim, reason, self._delay(claim.attempt))
                if is_released and is_of_disk(error):
                    forgive_attempt(connection, claim)
            else:
                tries = f" (try {claim.attempt} of {self._limits.max_attempts})" if may_pass(error) else ""
                jobs.kill(connection, claim, self._now(), reason + tries)

        self._write(write)
        self._count("jobs_retried" if will_retry else "jobs_dead", claim.bundle)

    def lost_device(self, claim: Claim, error: DeviceError) -> None:
        """Say that the device was lost on this job: no try of its own, unless it loses the device again and again."""
        losses, most = claim.device_losses + 1, self._limits.max_device_losses
        reason = f"{describe(error)} (loss {losses} of {most})"
        will_retry = losses < most
        log.error("job.device_lost", job_id=claim.job_id, bundle=claim.bundle, reason=reason, will_retry=will_retry)

        def write(connection: Connection) -> None:
            if not will_retry:
                jobs.kill(connection, claim, self._now(), f"{reason}: each worker that tries this job loses its device")
            elif self._release(connection, claim, reason, self._delay(losses)):
                forgive_attempt(connection, claim)
                count_device_loss(connection, claim)

        self._write(write)
        self._count("jobs_retried" if will_retry else "jobs_dead", claim.bundle)

    def not_begun(self, claim: Claim) -> None:
        """Queue a job again that was not begun; the try does not count."""

        def write(connection: Connection) -> None:
            if self._release(connection, claim, "the worker was stopped", timedelta(0)):
                forgive_attempt(connection, claim)

        self._write(write)

    def _release(self, connection: Connection, claim: Claim, reason: str, delay: timedelta) -> bool:
        return jobs.release_for_retry(connection, claim, self._now(), reason, delay)

    def _delay(self, tries: int) -> timedelta:
        return retry_delay(tries, self._limits.retry_first, self._limits.retry_limit)

    def _write(self, write: Callable[[Connection], None]) -> None:
        try:
            with self._store.write() as connection:
                write(connection)
        except DatabaseAwayError as error:
            self._away(error)
