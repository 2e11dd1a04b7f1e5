"""Events of workitems to subscribers by N-EVENT-REPORT (PS3.4 CC.2.4), on associations of our own.

Told from the role `deliver`: it is the one that opens associations to others, has their time limits and back-off, and
may be slow without holding up a sender or a browser. A peer that does not answer waits longer each time; its events
stay in order. What a peer refuses for good, and what is older than a day, is dropped: events are news.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import orjson
import structlog
from pynetdicom import build_role
from pynetdicom.association import Association

from gateway.calling import PromptEntity, ended
from gateway.config import DicomAddress
from gateway.errors import DatabaseAwayError, DestinationAwayError
from gateway.job import retry_delay
from gateway.secure_channel import ClientChannel, tls_args
from gateway.services import Heartbeat
from gateway.store import Store
from gateway.store.workitem_events import (
    Event,
    due_events,
    due_subscribers,
    forget_events,
    hold_events,
    postpone_events,
    tell_everybody,
)
from gateway.workitem.mapping import UPS_PUSH
from gateway.workitem.model import dataset_of, element
from gateway.workitem.state import Content, EventType, scp_restarted

log = structlog.get_logger()

UPS_EVENT = "1.2.840.10008.5.1.4.34.6.4"
_POLL_S = 0.5
_AWAY_S = 2.0
_BATCH = 50
_THREADS = 4
_HOLD = timedelta(minutes=2)
"""After which another teller may take the events of one that died with them in hand."""
_STATUS_FAILURES = frozenset({0x0110, 0x0112, 0x0113, 0x0117, 0x0118, 0x0119, 0x0124, 0x0211, 0x0212})
"""Answers that no repetition changes (PS3.7 10.1.1.1.8); the event is dropped."""


@dataclass(frozen=True, slots=True)
class TellerLimits:
    """How long a peer is waited for."""

    timeout_s: float
    """Of each step of an association."""
    retry_first: timedelta
    retry_limit: timedelta


class Teller:
    """Tells subscribers whose address is known; runs beside the deliverer.

    Parameters
    ----------
    store, heartbeat
        Where events stand; who hears how it goes.
    ae_title
        Ours.
    peers
        AE title -> address.
    limits
        Times.
    security
        For peers that are called by TLS.
    now
        The clock.
    """

    name = "deliver"

    def __init__(  # noqa: PLR0913, PLR0917 # the parts of the loop
        self,
        store: Store,
        heartbeat: Heartbeat,
        ae_title: str,
        peers: Mapping[str, DicomAddress],
        limits: TellerLimits,
        security: ClientChannel | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._heartbeat = heartbeat
        self._ae_title = ae_title
        self._peers = dict(peers)
        self._limits = limits
        self._security = security
        self._now = now
        self._stop = threading.Event()

    def run(self, stop: threading.Event) -> None:
        """Tell of the restart, then tell events until `stop` is set; the event that is being told is finished."""
        self._stop = stop
        has_said_hello = False
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="tell") as pool:
            telling: dict[str, Future[None]] = {}
            while not stop.wait(_POLL_S):
                try:
                    if not has_said_hello:
                        self._say_hello()
                        has_said_hello = True
                    due = self._due()
                except DatabaseAwayError as error:
                    log.warning("workitem.teller_away", reason=str(error))
                    stop.wait(_AWAY_S)
                    continue
                for subscriber in due:
                    if subscriber not in telling:
                        telling[subscriber] = pool.submit(self.tell, subscriber)
                for subscriber in [name for name, each in telling.items() if each.done()]:
                    telling.pop(subscriber).result()

    def tell(self, subscriber: str) -> None:
        """Tell one subscriber what waits for it; where it is away, all of that waits longer."""
        try:
            events = self._take(subscriber)
            if not events:
                return
            try:
                self._tell(self._peers[subscriber], events)
            except DestinationAwayError as error:
                self._postpone(subscriber, events[0].attempts + 1, str(error))
        except DatabaseAwayError as error:
            log.warning("workitem.teller_away", reason=str(error))

    def _take(self, subscriber: str) -> Sequence[Event]:
        """Return the next events, held so that no other teller tells them too."""
        with self._store.write() as connection:
            now = self._now()
            if subscriber not in due_subscribers(connection, "dimse", now):
                return ()
            events = due_events(connection, "dimse", [subscriber], now, _BATCH)
            if not hold_events(connection, [event.id for event in events], now, now + _HOLD):
                connection.rollback()
                return ()
            return events

    def _say_hello(self) -> None:
        with self._store.write() as connection:
            tell_everybody(connection, EventType.SCP_STATUS_CHANGE, scp_restarted(), self._now())

    def _due(self) -> Sequence[str]:
        with self._store.read() as connection:
            waiting = due_subscribers(connection, "dimse", self._now())
        return [subscriber for subscriber in waiting if subscriber in self._peers]

    def _tell(self, peer: DicomAddress, events: Sequence[Event]) -> None:
        entity = PromptEntity(ae_title=self._ae_title)
        entity.acse_timeout = entity.dimse_timeout = self._limits.timeout_s
        entity.network_timeout = entity.connection_timeout = self._limits.timeout_s
        entity.add_requested_context(UPS_EVENT)
        # We ask for the association and are the SCP of UPS Event on it (PS3.4 CC.3.2, PS3.7 D.3.3.4).
        role = build_role(UPS_EVENT, scp_role=True)
        association = entity.associate(
            peer.host, peer.port, ae_title=peer.ae_title, ext_neg=[role], tls_args=tls_args(peer, self._security)
        )
        if not association.is_established:
            raise DestinationAwayError("no association for UPS Event")
        with ended(association):
            if not association.accepted_contexts:
                raise DestinationAwayError("the peer does not take the role of SCU of UPS Event")
            for number, event in enumerate(events, start=1):
                self._report(association, event, number)
                if self._stop.is_set() and number < len(events):
                    raise DestinationAwayError("the role stops")  # the rest is told after the restart

    def _report(self, association: Association, event: Event, number: int) -> None:
        if not association.is_established:
            raise DestinationAwayError("the association was aborted")
        try:
            answer, _ = association.send_n_event_report(
                dataset_of(_with_character_set(event.content)),
                int(event.kind),
                UPS_PUSH,
                event.subject,
                msg_id=number,
                meta_uid=UPS_EVENT,
            )
        except ValueError:
            # No repetition makes a data set of it; what waits behind it is told.
            log.error("workitem.event_unwritable", event_type=int(event.kind))
            self._forget(event)
            return
        if "Status" not in answer:
            raise DestinationAwayError("no answer to N-EVENT-REPORT")
        status = int(answer.Status)
        if status not in _STATUS_FAILURES and status != 0:
            raise DestinationAwayError(f"status {status:04X} to N-EVENT-REPORT")
        if status:
            log.warning("workitem.event_refused", status=f"{status:04X}", event_type=int(event.kind))
        self._forget(event)
        self._heartbeat.counters.add('hybridmed_workitem_events_total{channel="dimse"}')

    def _forget(self, event: Event) -> None:
        with self._store.write() as connection:
            forget_events(connection, [event.id])

    def _postpone(self, subscriber: str, attempts: int, reason: str) -> None:
        delay = retry_delay(attempts, self._limits.retry_first, self._limits.retry_limit)
        log.warning("workitem.subscriber_away", subscriber=subscriber, reason=reason, wait_s=delay.total_seconds())
        with self._store.write() as connection:
            postpone_events(connection, "dimse", subscriber, self._now() + delay)


def _with_character_set(content: Content) -> Content:
    """Say the Specific Character Set where texts need one (PS3.4 table CC.2.4-1)."""
    if orjson.dumps(dict(content)).isascii():
        return content
    return {**content, **element("SpecificCharacterSet", "ISO_IR 192")}
