"""The loop of the role `work`.

One job is on the device while the next one is claimed and prepared, at most one ahead. The message is acknowledged
last, when the database says what became of the job; a message that comes again finds nothing to do.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import structlog

from gateway.broker import Broker, Received
from gateway.config import Destination
from gateway.errors import (
    ConfigurationError,
    DatabaseAwayError,
    GatewayError,
    JobHungError,
    LeaseLostError,
    ServiceAwayError,
)
from gateway.job import Claim, retry_delay
from gateway.lease import Lease, LeaseKeeper, Watchdog
from gateway.place import place
from gateway.services import Heartbeat
from gateway.store import Store, jobs
from gateway.store.results import forgive_attempt
from gateway.tracing import Carrier, span
from gateway.worker.ahead import Ahead
from gateway.worker.execution import Execution, Made, Prepared
from gateway.worker.failure import describe, is_of_disk, may_pass
from gateway.worker.files import probe, remove_unused
from gateway.worker.measures import Measures
from gateway.worker.model import FindModel, Limits, Renderers

log = structlog.get_logger()
T = TypeVar("T")

_IDLE_S = 1.0
"""How long a look at the queue lasts while nothing is in hand."""
_BUSY_S = 0.2
"""The same, while a job is on the device."""
_AWAY_S = 1.0
"""Wait before the next try while the database or the broker is away."""
_HUNG = 70
"""Exit code of a worker whose job hangs (EX_SOFTWARE)."""


@dataclass(frozen=True, slots=True, eq=False)
class _InHand:
    """A message, and the lease on the job that it names."""

    received: Received
    lease: Lease[Claim]
    claimed_at: float
    """Monotonic."""
    spent: dict[str, float] = field(default_factory=dict)
    """Seconds of each stage: 'infer_s' and so on."""

    @property
    def claim(self) -> Claim:
        return self.lease.claim


class Worker:
    """Runs models over the studies that jobs name; serves once.

    Parameters
    ----------
    store, broker, heartbeat
        Where jobs stand, how they come, who hears how it goes.
    find_model
        Gives the model of a bundle.
    renderers
        Outcomes -> DICOM, pictures, FHIR.
    destinations
        All that are configured.
    limits
        Leases and tries.
    now
        The clock.
    ahead
        Works on studies that still arrive, while nothing else is to be done; None: nobody does.
    """

    name = "work"

    def __init__(  # noqa: PLR0913 # the parts of the loop, all by name
        self,
        *,
        store: Store,
        broker: Broker,
        heartbeat: Heartbeat,
        find_model: FindModel,
        renderers: Renderers,
        destinations: Sequence[Destination],
        limits: Limits,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        ahead: Ahead | None = None,
    ) -> None:
        self._store = store
        self._broker = broker
        self._heartbeat = heartbeat
        self._limits = limits
        self._now = now
        self._execution = Execution(store, find_model, renderers, destinations, now, ahead)
        self._ahead = ahead
        watchdog = Watchdog(limits.job_limit_s, self._end_hung)
        self._keeper = LeaseKeeper(self._renew, limits.lease_s / 3, "work-leases", watchdog)
        self._measures = Measures(heartbeat.counters)
        self._lacks_disk = False
        self._stop = threading.Event()

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set; then the job on the device is finished and the prepared one given back."""
        self._stop = stop
        self._sweep()
        with self._keeper, self._working_ahead(), ThreadPoolExecutor(1, thread_name_prefix="infer") as device:
            present: Future[None] | None = None
            upcoming: tuple[_InHand, Prepared] | None = None
            looks_ahead = True
            while not stop.is_set():
                if present is not None and present.done():
                    present = present.result()  # raises what only a defect of this loop can raise
                if present is None and upcoming is not None:
                    # A job that killed its worker before may do so again: it takes no other along.
                    looks_ahead = upcoming[0].claim.attempt == 1
                    present, upcoming = device.submit(self._complete, *upcoming), None
                if upcoming is None and (present is None or looks_ahead):
                    if present is None and self._ahead is not None:
                        self._ahead.go()
                    upcoming = self._take(_IDLE_S if present is None else _BUSY_S)
                elif present is not None:
                    wait([present], timeout=_BUSY_S)
            if upcoming is not None:
                self._give_back(upcoming[0])

    @contextmanager
    def _working_ahead(self) -> Iterator[None]:
        if self._ahead is None:
            yield
            return
        thread = threading.Thread(target=self._ahead.run, name="work-ahead", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._ahead.end()
            thread.join()

    def _take(self, timeout_s: float) -> tuple[_InHand, Prepared] | None:
        """Claim and prepare the next job; None where there is none, or where it ended at once."""
        if self._lacks_disk and not self._can_write():
            return None
        try:
            received = self._broker.receive(timeout_s)
        except (ServiceAwayError, ConfigurationError) as error:
            self._away("queue", error)
            return None
        self._heartbeat.recovered("queue")
        if received is not None and self._ahead is not None:
            self._ahead.rest()
        hand = None if received is None else self._claim(received)
        if hand is None:
            return None
        prepared = self._guarded(hand, lambda: self._prepared(hand))
        return None if prepared is None else (hand, prepared)

    def _prepared(self, hand: _InHand) -> Prepared:
        with self._stage(hand, "prepare", hand.received.message.trace_context):
            return self._execution.prepare(hand.claim)

    def _claim(self, received: Received) -> _InHand | None:
        job_id, owner = received.message.job_id, self._heartbeat.service_id
        try:
            with self._store.write() as connection:
                claimed = jobs.claim(connection, job_id, owner, self._now(), self._limits.lease_s)
        except DatabaseAwayError as error:
            received.requeue()
            self._away("database", error)
            return None
        self._heartbeat.recovered("database")
        if claimed is None:
            # Done, cancelled, held by another or not due: the row says so, and the message has no more to say.
            received.ack()
            self._count("messages_without_work")
            return None
        log.info("job.claimed", job_id=job_id, bundle=claimed.bundle, attempt=claimed.attempt)
        return _InHand(received, self._keeper.hold(claimed), time.monotonic())

    def _complete(self, hand: _InHand, prepared: Prepared) -> None:
        """Infer, render, commit, acknowledge; runs in the device thread."""
        hand.lease.begin()
        carrier = hand.received.message.trace_context
        with span("job", carrier, job_id=hand.claim.job_id, bundle=hand.claim.bundle) as inner:
            made = self._guarded(hand, lambda: self._results(hand, prepared, inner))
        if made is None:
            return
        self._settle(hand)
        took_s = time.monotonic() - hand.claimed_at
        self._count("jobs_done", bundle=hand.claim.bundle)
        self._measures.job_done(hand.claim, made.outcomes, took_s, carrier)
        log.info("job.done", job_id=hand.claim.job_id, bundle=hand.claim.bundle, took_s=round(took_s, 3), **hand.spent)

    def _results(self, hand: _InHand, prepared: Prepared, carrier: Carrier) -> Made:
        """Return the results once they are committed; LeaseLostError where they must be dropped."""
        hand.lease.require()
        with self._stage(hand, "infer", carrier):
            outcomes = self._execution.infer(prepared)
        hand.lease.require()
        with self._stage(hand, "publish", carrier):
            made = self._execution.publish(prepared, outcomes)
        while True:
            try:
                with self._stage(hand, "commit", carrier):
                    is_committed = self._execution.commit(prepared, made)
                if not is_committed:
                    raise LeaseLostError("the lease passed to another owner")
            except DatabaseAwayError as error:
                # The results are worth more than the wait: nobody else can take the job meanwhile.
                if self._stop.is_set():
                    raise
                self._away("database", error)
            else:
                self._heartbeat.recovered("database")
                return made

    @contextmanager
    def _stage(self, hand: _InHand, name: str, carrier: Carrier) -> Iterator[None]:
        began = time.monotonic()
        with self._measures.stage(name, hand.claim, carrier):
            yield
        hand.spent[f"{name}_s"] = round(time.monotonic() - began, 3)

    def _guarded(self, hand: _InHand, step: Callable[[], T]) -> T | None:
        """Run a step; where it raises, say in the database what becomes of the job, and return None."""
        try:
            return step()
        except LeaseLostError:
            log.warning("job.lease_lost", job_id=hand.claim.job_id)
            self._count("leases_lost")
            self._settle(hand)
        except Exception as error:  # whatever one study does to a model, the next study must not wait
            self._fail(hand, error)
        return None

    def _fail(self, hand: _InHand, error: Exception) -> None:
        self._note_failure(hand.claim, error)
        self._settle(hand)

    def _end_hung(self, claim: Claim) -> None:
        """Say that a job hangs and end this process: nothing else ends a call that does not return."""
        log.error("job.hung", job_id=claim.job_id, bundle=claim.bundle, limit_s=self._limits.job_limit_s)
        try:
            self._note_failure(claim, JobHungError(f"no result within {self._limits.job_limit_s:g} s"))
        finally:
            os._exit(_HUNG)

    def _note_failure(self, claim: Claim, error: Exception) -> None:
        reason = describe(error)
        self._lacks_disk = self._lacks_disk or is_of_disk(error)
        is_last = claim.attempt >= self._limits.max_attempts and not is_of_disk(error)
        will_retry = may_pass(error) and not is_last
        log.warning("job.failed", job_id=claim.job_id, reason=reason, place=place(error), will_retry=will_retry)
        try:
            with self._store.write() as connection:
                if will_retry:
                    delay = retry_delay(claim.attempt, self._limits.retry_first, self._limits.retry_limit)
                    is_released = jobs.release_for_retry(connection, claim, self._now(), reason, delay)
                    if is_released and is_of_disk(error):
                        forgive_attempt(connection, claim)
                else:
                    tries = f" (try {claim.attempt} of {self._limits.max_attempts})" if may_pass(error) else ""
                    jobs.kill(connection, claim, self._now(), reason + tries)
        except DatabaseAwayError as away:
            # The lease runs out and the dispatcher queues the job again.
            self._away("database", away)
        self._count("jobs_retried" if will_retry else "jobs_dead", bundle=claim.bundle)

    def _give_back(self, hand: _InHand) -> None:
        """Queue a job again that was prepared and not begun; the try does not count."""
        try:
            with self._store.write() as connection:
                now = self._now()
                if jobs.release_for_retry(connection, hand.claim, now, "the worker was stopped", timedelta(0)):
                    forgive_attempt(connection, hand.claim)
        except DatabaseAwayError as error:
            log.warning("job.give_back_failed", job_id=hand.claim.job_id, reason=str(error))
        self._settle(hand)

    def _settle(self, hand: _InHand) -> None:
        self._keeper.release(hand.lease)
        hand.received.ack()

    def _can_write(self) -> bool:
        """Say whether the disk takes results again; until then no job is claimed, only to fail at its end."""
        try:
            probe(self._store.data_dir)
        except OSError as error:
            self._away("disk", GatewayError(describe(error)))
            return False
        self._lacks_disk = False
        self._heartbeat.recovered("disk")
        return True

    def _renew(self, claim: Claim) -> bool:
        with self._store.write() as connection:
            return jobs.renew(connection, claim, self._now(), self._limits.lease_s)

    def _sweep(self) -> None:
        try:
            removed = remove_unused(self._store)
        except ServiceAwayError as error:
            self._away("database", error)
            return
        if removed:
            log.info("results.unused_removed", count=removed)

    def _away(self, part: str, error: GatewayError) -> None:
        log.warning("work.away", part=part, reason=str(error))
        self._heartbeat.degraded(part, str(error))
        self._stop.wait(_AWAY_S)

    def _count(self, name: str, **labels: str) -> None:
        shown = ",".join(f'{label}="{value}"' for label, value in labels.items())
        self._heartbeat.counters.add(f"hybridmed_{name}_total" + (f"{{{shown}}}" if shown else ""))
