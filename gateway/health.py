"""Whether the roles of this host live: what the health check of a container or a unit asks."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from datetime import UTC, datetime

from gateway.config import Settings
from gateway.errors import DatabaseAwayError
from gateway.services import SHOWN, gone_before, silent
from gateway.store import Store
from gateway.store.services import ServiceBeat, list_services

_CONNECT_S = 3.0
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 # what to call where a role listens on all addresses


def unwell(settings: Settings, store: Store, roles: Sequence[str]) -> list[str]:
    """Return a sentence for each role of this host that is not well; empty where all are.

    The roles that listen are called at their ports, which need no database; the others are known by their heartbeats. A
    process whose heartbeat stopped is told of all: a port is answered by the kernel, whatever becomes of the process.

    Parameters
    ----------
    roles
        What should run here; empty: whatever the heartbeats of this host name.

    Raises
    ------
    DatabaseAwayError
        The database does not answer, and there are roles that only it knows about.
    """
    ports = {"receive": settings.dicom_port, "web": settings.http_port}
    beating, missing = _heard(store, is_needed=not roles or any(role not in ports for role in roles))
    wanted = roles or sorted(beating)
    if not wanted:
        return ["no role runs on this host"]
    problems = [f"{role}: no heartbeat" for role in wanted if role not in ports and role not in beating]
    for role in wanted:
        if role in ports and not _listens(settings.bind, ports[role]):
            problems.append(f"{role}: nothing listens on port {ports[role]}")
    silenced = [one for one in missing if one.role in wanted and (one.role in beating or one.role in ports)]
    return problems + [f"{one.role}: no sign of life of process {one.pid}" for one in silenced]


def _heard(store: Store, *, is_needed: bool) -> tuple[set[str], list[ServiceBeat]]:
    """Return the roles of this host with a heartbeat, and its processes that have none any more."""
    now = datetime.now(UTC)
    try:
        with store.read() as connection:
            beats = [one for one in list_services(connection, now - SHOWN) if one.host == socket.gethostname()]
    except DatabaseAwayError:
        if is_needed:
            raise
        return set(), []
    return {one.role for one in beats if one.seen_at >= gone_before(now)}, silent(beats, now)


def _listens(bind: str, port: int) -> bool:
    try:
        with socket.create_connection((_ANY.get(bind, bind), port), timeout=_CONNECT_S):
            return True
    except OSError:
        return False
