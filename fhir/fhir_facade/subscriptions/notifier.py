"""The loop that gives subscribers their events and tells their endpoints; in the role `deliver`, beside the deliverer.

An endpoint is told in order, one notification at a time, whichever process holds the subscription; others are told
meanwhile. What it does not take is tried again with back-off; after so many failures in a row the subscription is off,
with the reason in it. A notification whose answer was lost is told again: its numbers say so.
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

import structlog

from fhir_facade.outcome import MEDIA_TYPE
from fhir_facade.subscriptions.matcher import Matcher
from fhir_facade.subscriptions.notification import notification
from fhir_facade.subscriptions.standing import write_status
from gateway.errors import DatabaseAwayError, DeliveryError, DestinationAwayError, LeaseLostError
from gateway.exchange.client import HttpClient
from gateway.exchange.endpoint import AllowedEndpoints
from gateway.job import retry_delay
from gateway.services import Heartbeat
from gateway.store import Store
from gateway.store.access import is_revoked
from gateway.store.fhir_subscriptions import (
    Event,
    Hold,
    Status,
    SubscriptionRow,
    count_subscriptions,
    due_subscriptions,
    event_bodies,
    find_subscription,
    forget_events,
    hold_subscription,
    list_events,
    update_held,
)
from gateway.store.results import lock_resources

log = structlog.get_logger()

_POLL_S = 0.5
_AWAY_S = 2.0
_THREADS = 8
_AT_ONCE = 200
_MARGIN_S = 30.0
"""By which a hold outlasts a notification."""
_LARGEST_ANSWER = 1 << 16
"""Bytes read of an endpoint's answer; it has nothing to say."""
_SWEEP_EVERY = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class NotifierLimits:
    """How long an endpoint may take, and how often it is tried."""

    timeout_s: float
    max_failures: int
    """In a row, before a subscription is off."""
    retry_first: timedelta
    retry_limit: timedelta
    events_kept: timedelta
    """How long `$events` tells what was told."""


class Notifier:
    """Tells subscribers.

    Parameters
    ----------
    store, heartbeat
        Where subscriptions stand; who hears how it goes.
    endpoints
        Which addresses may be told.
    limits
        Times and tries.
    zone
        The site's zone, for dates in criteria.
    trust
        Whom we believe by TLS; None: whom this machine believes.
    now
        The clock.
    """

    name = "deliver"

    def __init__(  # noqa: PLR0913 # the parts of the loop, all by name
        self,
        *,
        store: Store,
        heartbeat: Heartbeat,
        endpoints: AllowedEndpoints,
        limits: NotifierLimits,
        zone: tzinfo | None = None,
        trust: Callable[[], ssl.SSLContext] | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._heartbeat = heartbeat
        self._endpoints = endpoints
        self._limits = limits
        self._now = now
        self._client = HttpClient(limits.timeout_s, _LARGEST_ANSWER, trust)
        self._matcher = Matcher(store, zone, now)
        self._stop = threading.Event()
        self._sweep_at = now()

    def run(self, stop: threading.Event) -> None:
        """Match and tell until `stop` is set; the notification that is being told is finished."""
        self._stop = stop
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="hooks") as pool:
            telling: dict[str, Future[None]] = {}
            while not stop.is_set():
                try:
                    matched = self._matcher.match_some()
                    due = self._look()
                except DatabaseAwayError as error:
                    log.warning("subscription.away", part="database", reason=str(error))
                    stop.wait(_AWAY_S)
                    continue
                for resource_id in due:
                    if resource_id not in telling:
                        telling[resource_id] = pool.submit(self.tell, resource_id)
                for resource_id in [name for name, each in telling.items() if each.done()]:
                    telling.pop(resource_id).result()
                if not matched:
                    stop.wait(_POLL_S)

    def tell(self, resource_id: str) -> None:
        """Tell one subscriber all that is due to it, until it fails or `run` is to stop."""
        try:
            with self._store.write() as connection:
                hold = hold_subscription(connection, resource_id, self._now(), self._lease_s)
            if hold is None:
                return
            try:
                while not self._stop.is_set() and self._tell_next(hold):
                    continue
            finally:
                with self._store.write() as connection:
                    update_held(connection, hold, lease_owner=None, lease_expires_at=None)
        except LeaseLostError:
            log.info("subscription.lost", subscription=resource_id)  # a client changed it, or another process holds it
        except DatabaseAwayError as error:
            log.warning("subscription.away", part="database", reason=str(error))

    @property
    def _lease_s(self) -> float:
        return self._limits.timeout_s + _MARGIN_S

    def _look(self) -> Sequence[str]:
        now = self._now()
        with self._store.read() as connection:
            due = due_subscriptions(connection, now, _AT_ONCE)
        if now >= self._sweep_at:
            self._sweep_at = now + _SWEEP_EVERY
            with self._store.write() as connection:
                forget_events(connection, now - self._limits.events_kept)
                counts = count_subscriptions(connection)
            for status in ("requested", "active", "error", "off"):
                self._heartbeat.counters.set(
                    f'hybridmed_fhir_subscriptions{{status="{status}"}}', counts.get(status, 0)
                )
        return due

    def _tell_next(self, hold: Hold) -> bool:
        """Do the next thing that is due; False where nothing more is to be done now."""
        now = self._now()
        with self._store.read() as connection:
            row = find_subscription(connection, hold.resource_id)
            if row is None or row.status == "off":
                return False
            events = list_events(connection, row.resource_id, row.told + 1, row.event_count, row.max_count)
            bodies = event_bodies(connection, events) if row.content == "full-resource" else {}
            owner = row.owner or {}
            has_lost_access = is_revoked(connection, owner.get("kind", ""), owner.get("name", ""))
        if has_lost_access or (row.ends_at is not None and row.ends_at <= now):
            reason = "the access of its owner was revoked" if has_lost_access else "its end has come"
            self._settle(hold, "off", reason, failures=row.failures)
            return False
        if row.status == "requested":
            return self._open(hold, row, now)
        if events:
            requests = self._requests(row, events, bodies, now)
            return self._send(hold, row, requests, told=events[-1].number)
        if row.heartbeat_at is not None and row.heartbeat_at <= now:
            return self._send(hold, row, [("POST", row.endpoint, notification(row, "heartbeat", now))])
        return False

    def _open(self, hold: Hold, row: SubscriptionRow, now: datetime) -> bool:
        """Make a subscription active: that of a topic once its endpoint took the handshake."""
        if row.topic is None:
            self._settle(hold, "active", None, failures=0)
            return True
        return self._send(hold, row, [("POST", row.endpoint, notification(row, "handshake", now))])

    def _requests(
        self, row: SubscriptionRow, events: Sequence[Event], bodies: dict[Event, bytes], now: datetime
    ) -> Iterator[tuple[str, str, bytes | None]]:
        """Yield what tells events: for R4's own kind one request for each (R4 subscription-channel-type, rest-hook)."""
        if row.topic is not None:
            yield "POST", row.endpoint, notification(row, "event-notification", now, events, bodies)
            return
        for event in events:
            if row.content == "empty":
                yield "POST", row.endpoint, None
            elif event in bodies:
                yield "PUT", f"{row.endpoint.rstrip('/')}/{event.resource_type}/{event.resource_id}", bodies[event]

    def _send(
        self,
        hold: Hold,
        row: SubscriptionRow,
        requests: Iterator[tuple[str, str, bytes | None]] | Sequence[tuple[str, str, bytes | None]],
        told: int | None = None,
    ) -> bool:
        """Send, and write down how it went; False where it failed."""
        try:
            for method, url, content in requests:
                self._ask(row, method, url, content)
        except (DestinationAwayError, DeliveryError) as error:
            self._failed(hold, row, str(error))
            return False
        self._took(hold, row, told)
        return True

    def _ask(self, row: SubscriptionRow, method: str, url: str, content: bytes | None) -> None:
        refusal = self._endpoints.refusal(row.endpoint)  # the setting may have changed since
        if refusal is not None:
            raise DeliveryError(refusal)
        headers = {name: value for name, value in row.headers}
        if content is not None:
            headers["Content-Type"] = MEDIA_TYPE
        timeout_s = min(self._limits.timeout_s, row.timeout_s or self._limits.timeout_s)
        client = replace(self._client, timeout_s=timeout_s)
        answer = client.ask(method, url, content=content, headers=headers)
        if not 200 <= answer.status < 300:  # noqa: PLR2004 # HTTP's success; a redirect is not followed
            raise DeliveryError(f"the endpoint answered {answer.status}")

    def _took(self, hold: Hold, row: SubscriptionRow, told: int | None) -> None:
        now = self._now()
        spoken = {
            "heartbeat_at": _after(now, row.heartbeat_s),
            "lease_expires_at": now + timedelta(seconds=self._lease_s),
        }
        if told is not None:
            spoken["told"] = told  # type: ignore[assignment] # a number among times
        self._count("told" if told is not None else "kept_alive")
        if row.status != "active" or row.failures:
            self._settle(hold, "active", None, failures=0, **spoken)
        else:
            with self._store.write() as connection:
                _require(update_held(connection, hold, **spoken))

    def _failed(self, hold: Hold, row: SubscriptionRow, reason: str) -> None:
        failures = row.failures + 1
        delay = retry_delay(failures, self._limits.retry_first, self._limits.retry_limit)
        is_last = failures >= self._limits.max_failures
        told = f"{reason}; {failures} failures in a row" if is_last else reason
        available = {"available_at": self._now() + delay}
        status: Status = "off" if is_last else "requested" if row.status == "requested" else "error"
        log.warning(
            "subscription.failed", subscription=row.resource_id, reason=reason, attempt=failures, is_off=is_last
        )
        self._count("failed")
        self._settle(hold, status, told, failures=failures, **available)

    def _settle(self, hold: Hold, status: Status, reason: str | None, *, failures: int, **values: Any) -> None:
        """Write how a subscription stands, in its row and in its resource."""
        with self._store.write() as connection:
            lock_resources(connection, [("Subscription", hold.resource_id)])  # as clients do who change it
            _require(update_held(connection, hold, status=status, failures=failures, **values))
            write_status(connection, hold.resource_id, status, reason, self._now())
        if status == "off":
            log.warning("subscription.off", subscription=hold.resource_id, reason=reason)

    def _count(self, outcome: str) -> None:
        self._heartbeat.counters.add(f'hybridmed_fhir_notifications_total{{outcome="{outcome}"}}')


def _after(now: datetime, seconds: int | None) -> datetime | None:
    return None if seconds is None else now + timedelta(seconds=seconds)


def _require(is_held: bool) -> None:
    if not is_held:
        raise LeaseLostError("another holds the subscription")
