"""The loop of the role `work`.

One job is on the device while the next one is claimed and prepared. Where several of one bundle wait, and its model
takes several, they go to the device together and then, one by one, through the rest of their way. What fails together
is tried again one by one; a job that was tried before is always alone. Where the device is lost, all jobs are given
back, and the process ends for another to begin. The message is acknowledged last, when the database says what became of
the job; a message that comes again finds nothing to do.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
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
from gateway.job import Claim
from gateway.lease import LeaseKeeper, Watchdog
from gateway.place import place
from gateway.services import DEVICE_LOST, HUNG, Heartbeat
from gateway.store import Store, jobs
from gateway.tracing import Carrier, span
from gateway.worker.ahead import Ahead, working_ahead
from gateway.worker.execution import Execution, Made, Prepared
from gateway.worker.failure import describe, is_of_disk
from gateway.worker.files import probe, remove_unused
from gateway.worker.hand import InHand, Ready, enqueue, joined
from gateway.worker.measures import Measures
from gateway.worker.model import FindModel, Limits, Renderers
from gateway.worker.unfinished import Unfinished
from inference.errors import DeviceError, DeviceLostError
from inference.findings import Outcome

log = structlog.get_logger()
T = TypeVar("T")

_IDLE_S = 1.0
"""How long a look at the queue lasts while nothing is in hand."""
_BUSY_S = 0.2
"""The same, while a job is on the device."""
_AWAY_S = 1.0
"""Wait before the next try while the database or the broker is away."""


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
    opened_early
        Bundles that are opened while nothing else is to be done, so that a bad one is known before its first study.
    check_device
        Raises DeviceError where the device does not work; asked once, before the first job.
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
        opened_early: Sequence[str] = (),
        check_device: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._broker = broker
        self._heartbeat = heartbeat
        self._limits = limits
        self._now = now
        self._execution = Execution(store, find_model, renderers, destinations, now, ahead)
        self._ahead = ahead
        self._find_model, self._unopened = find_model, deque(opened_early)
        watchdog = Watchdog(limits.job_limit_s, self._end_hung, self._note_slow)
        self._unfinished = Unfinished(
            store, now, limits, lambda name, bundle: self._count(name, bundle=bundle), partial(self._away, "database")
        )
        self._check_device = check_device
        self._device_lost = threading.Event()
        self._keeper = LeaseKeeper(self._renew, limits.lease_s / 3, "work-leases", watchdog)
        self._measures = Measures(heartbeat.counters)
        # Where one try is all that there is, no neighbour may cost it.
        self._most_together = limits.together if limits.max_attempts > 1 else 1
        self._pause_s = 2 * limits.together * limits.job_limit_s  # of those on the device, and of those before it
        self._lacks_disk = False
        self._stop = threading.Event()

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set; then the job on the device is finished and those prepared are given back.

        Raises
        ------
        SystemExit
            With the code `DEVICE_LOST`: the device is of no use to this process any more; all jobs are given back.
        """
        self._stop = stop
        try:
            self._check_device()
        except DeviceError as error:  # no job is to blame
            self._lose_device([], error)
        else:
            self._sweep()
            self._work()
        if self._device_lost.is_set():
            raise SystemExit(DEVICE_LOST)

    def _work(self) -> None:
        with self._keeper, working_ahead(self._ahead), ThreadPoolExecutor(1, thread_name_prefix="infer") as device:
            present: Future[None] | None = None
            upcoming: list[Ready] = []
            looks_ahead = True
            while not (self._stop.is_set() or self._device_lost.is_set()):
                if present is not None and present.done():
                    present = present.result()  # raises what only a defect of this loop can raise
                if present is None and upcoming:
                    # A job that killed its worker before may do so again: it takes no other along.
                    looks_ahead = upcoming[0].is_first_try
                    batch = joined(upcoming)
                    present, upcoming = device.submit(self._complete_all, batch), upcoming[len(batch) :]
                if present is None and self._ahead is not None:
                    self._ahead.go()
                taken = self._take_next(upcoming, is_busy=present is not None, looks_ahead=looks_ahead)
                if taken is not None:
                    enqueue(upcoming, taken)
                elif present is None and not upcoming:
                    self._open_early()
                elif present is not None and (upcoming or not looks_ahead):
                    wait([present], timeout=_BUSY_S)
            for each in upcoming:
                self._give_back(each.hand)

    def _take_next(self, upcoming: Sequence[Ready], *, is_busy: bool, looks_ahead: bool) -> Ready | None:
        """Take a job where nothing is prepared; while one is on the device, further ones too that can go with it."""
        if not upcoming:
            return self._take(_BUSY_S if is_busy else _IDLE_S) if looks_ahead or not is_busy else None
        may_join = len(upcoming) < self._most_together and all(each.joins(upcoming[0]) for each in upcoming)
        return self._take(0.0) if is_busy and may_join else None

    def _open_early(self) -> None:
        """Open the next bundle whose study has not come yet."""
        if not self._unopened:
            return
        name = self._unopened.popleft()
        try:
            self._find_model(name)
        except DeviceLostError as error:
            self._lose_device([], error)
        except Exception as error:  # whatever is wrong with one bundle, the others go on; its jobs meet it and tell
            log.warning("work.not_opened", bundle=name, reason=describe(error), place=place(error))

    def _take(self, timeout_s: float) -> Ready | None:
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
        hand.lease.pause(self._pause_s)
        return None if prepared is None else Ready(hand, prepared)

    def _prepared(self, hand: InHand) -> Prepared:
        with self._stage(hand, "prepare", hand.received.message.trace_context):
            return self._execution.prepare(hand.claim)

    def _claim(self, received: Received) -> InHand | None:
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
        return InHand(received, self._keeper.hold(claimed), time.monotonic())

    def _complete_all(self, batch: Sequence[Ready]) -> None:
        """Infer together, take each to its end; runs in the device thread."""
        try:
            said = self._inferred_together(batch)
        except DeviceLostError as error:  # whichever of them is to blame: each is alone on the device the next time
            self._lose_device([each.hand for each in batch], error)
            return
        for index, (each, outcomes) in enumerate(zip(batch, said, strict=True)):
            if index and (self._stop.is_set() or self._device_lost.is_set()):
                self._give_back(each.hand)
            else:
                self._complete(each.hand, each.prepared, outcomes)

    def _inferred_together(self, batch: Sequence[Ready]) -> Sequence[tuple[Outcome, ...] | None]:
        """Return what the model says of each of several jobs; None where each is to be asked by itself."""
        alone = [None] * len(batch)
        if len(batch) == 1:
            return alone
        began = time.monotonic()
        for each in batch:
            each.hand.lease.begin()
        try:
            said = self._execution.infer_many([each.prepared for each in batch])
        except DeviceLostError:
            raise
        except Exception as error:  # whichever of them is to blame, it shall say so by itself and spoil no other
            log.warning("work.not_together", jobs=len(batch), reason=describe(error), place=place(error))
            return alone
        finally:
            for each in batch:
                each.hand.lease.pause(self._pause_s)
        took_s = (time.monotonic() - began) / len(batch)
        for each in batch:
            self._measures.shared("infer", each.hand.claim, took_s, each.hand.received.message.trace_context)
            each.hand.spent["infer_s"] = round(took_s, 3)
        return said

    def _complete(self, hand: InHand, prepared: Prepared, outcomes: tuple[Outcome, ...] | None) -> None:
        """Infer, render, release, complete, commit, acknowledge; runs in the device thread."""
        hand.lease.begin()
        carrier = hand.received.message.trace_context
        with span("job", carrier, job_id=hand.claim.job_id, bundle=hand.claim.bundle) as inner:
            made = self._guarded(hand, lambda: self._results(hand, prepared, outcomes, inner))
        if made is None:
            return
        took_s = time.monotonic() - hand.claimed_at
        self._count("jobs_done", bundle=hand.claim.bundle)
        self._measures.job_done(hand.claim, made.outcomes, took_s, carrier)
        self._settle(hand)  # last: as long as the lease is held, the watchdog ends what hangs
        log.info("job.done", job_id=hand.claim.job_id, bundle=hand.claim.bundle, took_s=round(took_s, 3), **hand.spent)

    def _results(
        self, hand: InHand, prepared: Prepared, outcomes: tuple[Outcome, ...] | None, carrier: Carrier
    ) -> Made:
        """Return the results once they are committed; LeaseLostError where they must be dropped."""
        hand.lease.require()
        if outcomes is None:
            with self._stage(hand, "infer", carrier):
                outcomes = self._execution.infer(prepared)
            hand.lease.require()
        with self._stage(hand, "publish", carrier):
            made = self._execution.publish(prepared, outcomes)
        self._write(hand, "release", carrier, lambda: self._execution.release(prepared, made))
        log.info("job.released", job_id=hand.claim.job_id, objects=len(made.objects))
        with self._stage(hand, "complete", carrier):
            completed = self._execution.complete(prepared, made)
        self._write(hand, "commit", carrier, lambda: self._execution.commit(prepared, completed))
        return completed

    def _write(self, hand: InHand, stage: str, carrier: Carrier, write: Callable[[], bool]) -> None:
        """Write to the database, however long it is away; LeaseLostError where the lease is lost."""
        while True:
            try:
                with self._stage(hand, stage, carrier):
                    is_written = write()
            except DatabaseAwayError as error:
                # The results are worth more than the wait: nobody else can take the job meanwhile.
                if self._stop.is_set():
                    raise
                self._away("database", error)
                continue
            if not is_written:
                raise LeaseLostError("the lease passed to another owner")
            self._heartbeat.recovered("database")
            return

    @contextmanager
    def _stage(self, hand: InHand, name: str, carrier: Carrier) -> Iterator[None]:
        began = time.monotonic()
        with self._measures.stage(name, hand.claim, carrier):
            yield
        hand.spent[f"{name}_s"] = round(time.monotonic() - began, 3)

    def _guarded(self, hand: InHand, step: Callable[[], T]) -> T | None:
        """Run a step; where it raises, say in the database what becomes of the job, and return None."""
        try:
            return step()
        except LeaseLostError:
            log.warning("job.lease_lost", job_id=hand.claim.job_id)
            self._count("leases_lost")
            self._settle(hand)
        except DeviceLostError as error:
            self._lose_device([hand], error)
        except Exception as error:  # whatever one study does to a model, the next study must not wait
            self._lacks_disk = self._lacks_disk or is_of_disk(error)
            self._unfinished.failed(hand.claim, error)
            self._settle(hand)
        return None

    def _note_slow(self, claim: Claim) -> None:
        self._heartbeat.degraded("job", f"no result of job {claim.job_id} within {self._limits.job_limit_s / 2:g} s")

    def _end_hung(self, claim: Claim) -> None:
        """Say that a job hangs and end this process: nothing else ends a call that does not return."""
        log.error("job.hung", job_id=claim.job_id, bundle=claim.bundle, limit_s=self._limits.job_limit_s)
        try:
            self._unfinished.failed(claim, JobHungError(f"no result within {self._limits.job_limit_s:g} s"))
        finally:
            os._exit(HUNG)

    def _give_back(self, hand: InHand) -> None:
        self._unfinished.not_begun(hand.claim)
        self._settle(hand)

    def _lose_device(self, hands: Sequence[InHand], error: DeviceError) -> None:
        """End with what is in hand: no job can be done by this process any more."""
        log.error("work.device_lost", reason=describe(error), jobs=len(hands))
        self._heartbeat.degraded("device", describe(error))
        self._device_lost.set()
        for hand in hands:
            self._unfinished.lost_device(hand.claim, error)
            self._settle(hand)

    def _settle(self, hand: InHand) -> None:
        self._keeper.release(hand.lease)
        self._heartbeat.recovered("job")
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
