"""Whether the gateway can receive and process, part by part, and why not."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from gateway.disk import free_mib, read_only_folders
from gateway.errors import GatewayError
from gateway.job import State as JobState
from gateway.services import SHOWN, gone_before, silent
from gateway.store import Store
from gateway.store.quarantine import count_quarantined
from gateway.store.services import ServiceBeat, list_services
from gateway.store.tables import delivery, job

State = Literal["ready", "degraded", "down"]
NEEDED_ROLES = ("receive", "dispatch", "work")
"""Without one of these the gateway does not receive and process."""
OTHER_ROLES = ("deliver",)
"""Without these it does, but not all of its work."""
_KEPT_S = 5.0
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Part:
    """One part as it stands."""

    name: str
    state: State
    reason: str | None = None
    is_needed: bool = True
    """Whether the gateway is down when this part is."""


@dataclass(frozen=True, slots=True)
class Readiness:
    """All parts."""

    parts: Sequence[Part]

    @property
    def state(self) -> State:
        """Return 'down' where a needed part is, 'degraded' where any part is not ready."""
        if any(part.state == "down" and part.is_needed for part in self.parts):
            return "down"
        return "ready" if all(part.state == "ready" for part in self.parts) else "degraded"

    def as_json(self) -> dict[str, Any]:
        """Return it for /readyz."""
        parts = {part.name: {"state": part.state, "reason": part.reason} for part in self.parts}
        return {"state": self.state, "parts": parts}


class ReadinessCheck:
    """Looks at each part; safe to call from any thread.

    Parameters
    ----------
    store
        The database and the data folder.
    reserve_bytes
        Free space under which no instance is accepted.
    broker_check
        Connects to the broker and says what it found; GatewayError where it is away. None: the queue is the database.
        What it found is kept for a few seconds, so that probes do not become connections.
    """

    def __init__(self, store: Store, reserve_bytes: int, broker_check: Callable[[], str] | None) -> None:
        self._store = store
        self._reserve_bytes = reserve_bytes
        self._broker_check = broker_check
        self._lock = threading.Lock()
        self._broker: tuple[float, Part] | None = None

    def look(self) -> Readiness:
        """Return how all parts stand now."""
        parts = [self._broker_part(), _disk_part(self._store.data_dir, self._reserve_bytes)]
        now = datetime.now(UTC)
        try:
            with self._store.read() as connection:
                services = list_services(connection, now - SHOWN)
                lists = [_dead_part(connection), _quarantine_part(connection), _delivery_part(connection)]
        except GatewayError as error:
            return Readiness([Part("database", "down", str(error)), *parts])
        roles = [_role_part(name, services, now, is_needed=True) for name in NEEDED_ROLES]
        roles += [_role_part(name, services, now, is_needed=False) for name in OTHER_ROLES]
        return Readiness([Part("database", "ready"), *parts, *roles, *lists])

    def _broker_part(self) -> Part:
        if self._broker_check is None:
            return Part("broker", "ready", "embedded: the jobs table is the queue")
        with self._lock:
            if self._broker is None or time.monotonic() - self._broker[0] > _KEPT_S:
                self._broker = (time.monotonic(), _checked(self._broker_check))
            return self._broker[1]


def _checked(broker_check: Callable[[], str]) -> Part:
    try:
        return Part("broker", "ready", broker_check())
    except GatewayError as error:
        return Part("broker", "down", str(error))


def _disk_part(data_dir: Path, reserve_bytes: int) -> Part:
    try:
        free, closed = free_mib(data_dir), read_only_folders(data_dir)
    except OSError as error:
        return Part("disk", "down", f"the data folder cannot be read: {error.strerror}")
    if closed:
        return Part("disk", "down", f"read-only in the data folder: {', '.join(closed)}")
    reserve_mib = reserve_bytes // _MIB
    if free < reserve_mib:
        return Part("disk", "down", f"{free} MiB free, under the reserve of {reserve_mib} MiB: instances are refused")
    return Part("disk", "ready", f"{free} MiB free")


def _role_part(role: str, services: Sequence[ServiceBeat], now: datetime, *, is_needed: bool) -> Part:
    beating = [service for service in services if service.role == role and service.seen_at >= gone_before(now)]
    name = f"role {role}"
    if not beating:
        return Part(name, "down", "not running", is_needed)
    reasons = sorted({service.reason or service.state for service in beating if service.state != "ready"})
    missing = [service for service in silent(services, now) if service.role == role]
    reasons += [f"no sign of life of process {service.pid} on {service.host}" for service in missing]
    if reasons:
        return Part(name, "degraded", "; ".join(reasons), is_needed)
    return Part(name, "ready", f"{len(beating)} running", is_needed)


def _dead_part(connection: Connection) -> Part:
    dead = connection.scalar(sa.select(sa.func.count()).where(job.c.state == JobState.DEAD)) or 0
    if dead:
        return Part("dead jobs", "degraded", f"{dead} on the dead list: hybridmed dead list", is_needed=False)
    return Part("dead jobs", "ready", is_needed=False)


def _quarantine_part(connection: Connection) -> Part:
    quarantined = count_quarantined(connection)
    if quarantined:
        reason = f"{quarantined} files could not be indexed: hybridmed dead list"
        return Part("quarantine", "degraded", reason, is_needed=False)
    return Part("quarantine", "ready", is_needed=False)


def _delivery_part(connection: Connection) -> Part:
    """Return the destinations that hold results back, and those that refused some for good."""
    troubled = sa.or_(
        delivery.c.state == "failed", sa.and_(delivery.c.state == "waiting", delivery.c.reason.is_not(None))
    )
    query = sa.select(delivery.c.destination, delivery.c.state, sa.func.count().label("how_many")).where(troubled)
    query = query.group_by(delivery.c.destination, delivery.c.state).order_by(delivery.c.destination, delivery.c.state)
    words = {"failed": "failed", "waiting": "in back-off"}
    reasons = [f"{row.destination}: {row.how_many} {words[row.state]}" for row in connection.execute(query)]
    return Part("deliveries", "degraded" if reasons else "ready", "; ".join(reasons) or None, is_needed=False)
