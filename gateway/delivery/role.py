"""The loop of the role `deliver`: a thread for each destination, so that a slow one holds up no other."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum, auto
from typing import TypeAlias

import structlog
from sqlalchemy.engine import Connection

from gateway.audit.acts import Moved, transferred
from gateway.audit.event import AuditEvent
from gateway.audit.trail import record
from gateway.config import Destination
from gateway.delivery.report_sender import OutgoingReport, ReportSender
from gateway.delivery.sender import Outgoing, Sender
from gateway.errors import DatabaseAwayError, DeliveryError, DestinationAwayError, FilesAwayError
from gateway.exchange.report import read_report
from gateway.job import retry_delay
from gateway.lease import LeaseKeeper
from gateway.services import Heartbeat
from gateway.store import Store, deliveries
from gateway.store.commits import Commits
from gateway.store.deliveries import DeliveryClaim
from gateway.store.jobs import get_job
from gateway.store.results import DICOM, NewArtefact, list_artefacts
from gateway.tracing import Carrier, span, trace_id
from gateway.variant import takes, variant_name

log = structlog.get_logger()

_POLL_S = 0.1
"""Between looks at the deliveries, where no commit of others is seen: a result waits half of it."""
_LOOK_S = 0.2
_AWAY_S = 1.0
_SECONDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
_REPORT = "sr-"
"""How the kinds of reports begin."""
_LOOK_EVERY_S = 30.0
"""Seconds between looks for deliveries to destinations that are not configured."""


@dataclass(frozen=True, slots=True)
class DeliveryLimits:
    """How long a delivery is held, and how often it is tried."""

    lease_s: float
    max_attempts: int
    """Answers that refuse, before it is given up; a destination that is away is tried for ever."""
    retry_first: timedelta
    retry_limit: timedelta


_Load: TypeAlias = Outgoing | OutgoingReport


class _Turn(Enum):
    """What one look of a destination's thread came to."""

    IDLE = auto()
    SENT = auto()
    AWAY = auto()


class Deliverer:
    """Sends committed results to their destinations; serves once.

    Parameters
    ----------
    store, heartbeat
        Where deliveries stand; who hears how it goes.
    destinations
        All that are configured.
    open_sender
        Gives the way to send to a destination.
    limits
        Leases and tries.
    ae_title
        Ours, for the audit trail.
    now
        The clock.
    """

    name = "deliver"

    def __init__(  # noqa: PLR0913 # the parts of the loop, all by name
        self,
        *,
        store: Store,
        heartbeat: Heartbeat,
        destinations: Sequence[Destination],
        open_sender: Callable[[Destination], Sender | ReportSender],
        limits: DeliveryLimits,
        ae_title: str = "",
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._heartbeat = heartbeat
        self._destinations = tuple(destinations)
        self._open_sender = open_sender
        self._limits = limits
        self._ae_title = ae_title
        self._now = now
        self._keeper = LeaseKeeper(self._renew, limits.lease_s / 3, "deliver-leases")

    def run(self, stop: threading.Event) -> None:
        """Deliver until `stop` is set; what is being sent is finished, within its time limits."""
        threads = len(self._destinations) + 1
        ending = threading.Event()
        with self._keeper, ThreadPoolExecutor(max_workers=threads, thread_name_prefix="deliver") as pool:
            served = [pool.submit(self._serve, destination, ending) for destination in self._destinations]
            served.append(pool.submit(self._fail_unknown, ending))
            # One that ends before `stop` met a defect: the others end too, so that the role is started anew.
            while not stop.wait(_LOOK_S) and not any(each.done() for each in served):
                continue
            ending.set()
            for each in served:
                each.result()

    def _serve(self, destination: Destination, stop: threading.Event) -> None:
        sender = self._open_sender(destination)
        commits = Commits(self._store)
        away = 0
        while not stop.is_set():
            try:
                turn = self._deliver_next(destination, sender)
            except DatabaseAwayError as error:
                log.warning("deliver.away", part="database", reason=str(error))
                self._heartbeat.degraded("database", str(error))
                stop.wait(_AWAY_S)
                continue
            self._heartbeat.recovered("database")
            if turn is _Turn.IDLE:
                commits.wait(stop, _POLL_S)
            elif turn is _Turn.SENT:
                away = 0
            else:
                away += 1
                stop.wait(retry_delay(away, self._limits.retry_first, self._limits.retry_limit).total_seconds())

    def _deliver_next(self, destination: Destination, sender: Sender | ReportSender) -> _Turn:
        with self._store.read() as connection:
            if not deliveries.has_due(connection, destination.name, self._now()):
                return _Turn.IDLE
        with self._store.write() as connection:
            claimed = deliveries.claim(connection, destination.name, self._now(), self._limits.lease_s)
            if claimed is None:
                return _Turn.IDLE
            objects = self._load(connection, destination, claimed.job_id)
            carrier = get_job(connection, claimed.job_id).trace_context or {}
        lease = self._keeper.hold(claimed)
        try:
            with span("delivery", carrier, job_id=claimed.job_id, destination=destination.name):
                return self._timed(carrier, claimed, destination, sender, objects)
        finally:
            self._keeper.release(lease)

    def _timed(
        self,
        carrier: Carrier,
        claimed: DeliveryClaim,
        destination: Destination,
        sender: Sender | ReportSender,
        objects: Sequence[_Load],
    ) -> _Turn:
        began = time.monotonic()
        turn = self._send(claimed, destination, sender, objects)
        if turn is _Turn.SENT:
            took_s = time.monotonic() - began
            self._heartbeat.counters.observe(
                "hybridmed_delivery_seconds",
                took_s,
                _SECONDS,
                trace_id=trace_id(carrier),
                destination=destination.name,
            )
        return turn

    def _send(
        self, claimed: DeliveryClaim, destination: Destination, sender: Sender | ReportSender, objects: Sequence[_Load]
    ) -> _Turn:
        began = time.monotonic()
        try:
            missing = [each.kind for each in objects if isinstance(each, Outgoing) and not self._is_there(each)]
            if missing:
                raise DeliveryError(f"result file is gone: {', '.join(missing)}")
            if objects:
                record(self._told(destination, objects, is_begin=True))
                _hand_over(sender, objects)
        except DestinationAwayError as error:
            record(self._told(destination, objects, failure=str(error)))
            self._put_back(claimed, str(error))
            return _Turn.AWAY
        except DeliveryError as error:
            record(self._told(destination, objects, failure=str(error)))
            self._recovered(destination)
            self._refused(claimed, str(error))
            return _Turn.SENT
        except Exception as error:  # whatever a library makes of one peer's answer, the other destinations go on
            self._refused(claimed, f"{type(error).__name__} while sending")
            return _Turn.SENT
        self._recovered(destination)
        if objects:
            record(self._told(destination, objects))
        note = None if objects else "nothing that this destination takes"
        with self._store.write() as connection:
            deliveries.finish(connection, claimed, self._now(), note)
        took_s = round(time.monotonic() - began, 3)
        log.info("delivery.done", **_names(claimed), objects=len(objects), took_s=took_s)
        self._count(claimed, "done")
        return _Turn.SENT

    def _is_there(self, outgoing: Outgoing) -> bool:
        """Say whether a file is on this host, brought there where it can be; DestinationAwayError where it may come."""
        try:
            return self._store.files.local(outgoing.path.relative_to(self._store.data_dir).as_posix()).is_file()
        except FilesAwayError as error:
            raise DestinationAwayError(str(error)) from error

    def _load(self, connection: Connection, destination: Destination, job_id: str) -> Sequence[_Load]:
        """Return what goes to a destination: the job's report as it now stands, or DICOM objects."""
        if not destination.takes_reports:
            return self._chosen(destination, list_artefacts(connection, job_id))
        report = read_report(connection, job_id)
        return [OutgoingReport(report)] if report.resources else []

    def _chosen(self, destination: Destination, artefacts: Sequence[NewArtefact]) -> list[Outgoing]:
        """Return what a destination takes, in its own variant where there is one; reports first."""
        own = variant_name(destination)
        by_kind: dict[tuple[int, str], NewArtefact] = {}
        for artefact in artefacts:
            if artefact.media_type != DICOM or not takes(destination, artefact.kind):
                continue
            key = (artefact.ordinal, artefact.kind)
            if artefact.variant == own or (artefact.variant == "" and key not in by_kind):
                by_kind[key] = artefact
        return [
            Outgoing(
                kind=artefact.kind,
                path=self._store.data_dir / artefact.path,
                sop_class_uid=artefact.sop_class_uid or "",
                sop_instance_uid=artefact.sop_instance_uid or "",
                study_instance_uid=artefact.study_instance_uid,
            )
            for artefact in sorted(by_kind.values(), key=lambda each: not each.kind.startswith(_REPORT))
        ]

    def _told(
        self, destination: Destination, objects: Sequence[_Load], *, is_begin: bool = False, failure: str = ""
    ) -> AuditEvent:
        """Return what goes out for the audit trail; all objects of a job are of one study."""
        counts = Counter(each.sop_class_uid for each in objects if each.sop_class_uid)
        moved = Moved(objects[0].study_instance_uid if objects else "", () if failure else tuple(counts.items()))
        address = destination.dicom
        return transferred(
            self._ae_title,
            destination.address if address is None else address.ae_title,
            moved,
            direction="out",
            is_begin=is_begin,
            address=destination.address if address is None else address.host,
            failure=failure,
        )

    def _put_back(self, claimed: DeliveryClaim, reason: str) -> None:
        with self._store.write() as connection:
            deliveries.put_back(connection, claimed, self._now(), reason)
        log.warning("delivery.away", **_names(claimed), reason=reason)
        self._heartbeat.degraded(f"destination {claimed.destination}", reason)
        self._count(claimed, "away")

    def _refused(self, claimed: DeliveryClaim, reason: str) -> None:
        tries, now = claimed.attempts + 1, self._now()
        is_last = tries >= self._limits.max_attempts
        with self._store.write() as connection:
            if is_last:
                deliveries.fail(connection, claimed, now, reason)
            else:
                delay = retry_delay(tries, self._limits.retry_first, self._limits.retry_limit)
                deliveries.refuse(connection, claimed, now, reason, delay)
        log.warning("delivery.refused", **_names(claimed), reason=reason, attempt=tries, will_retry=not is_last)
        self._count(claimed, "failed" if is_last else "refused")

    def _recovered(self, destination: Destination) -> None:
        self._heartbeat.recovered(f"destination {destination.name}")

    def _fail_unknown(self, stop: threading.Event) -> None:
        known = [destination.name for destination in self._destinations]
        while not stop.is_set():
            try:
                with self._store.write() as connection:
                    failed = deliveries.fail_unknown(connection, known, self._now())
                if failed:
                    log.warning("delivery.unknown_destination", count=failed)
            except DatabaseAwayError as error:
                log.warning("deliver.away", part="database", reason=str(error))
            stop.wait(_LOOK_EVERY_S)

    def _renew(self, claimed: DeliveryClaim) -> bool:
        with self._store.write() as connection:
            return deliveries.renew(connection, claimed, self._now(), self._limits.lease_s)

    def _count(self, claimed: DeliveryClaim, outcome: str) -> None:
        labels = f'destination="{claimed.destination}",outcome="{outcome}"'
        self._heartbeat.counters.add(f"hybridmed_deliveries_total{{{labels}}}")


def _hand_over(sender: Sender | ReportSender, objects: Sequence[_Load]) -> None:
    if isinstance(sender, ReportSender):
        for each in objects:
            if isinstance(each, OutgoingReport):
                sender.send_report(each.report)
    else:
        sender.send([each for each in objects if isinstance(each, Outgoing)])


def _names(claimed: DeliveryClaim) -> dict[str, str | int]:
    return {"delivery_id": claimed.id, "job_id": claimed.job_id, "destination": claimed.destination}
