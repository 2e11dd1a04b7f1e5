"""Whether the roles of this host live: what the health check of a container or a unit asks."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from datetime import UTC, datetime

from gateway.config import Settings
from gateway.services import gone_before
from gateway.store import Store
from gateway.store.services import list_services

_CONNECT_S = 3.0
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 # what to call where a role listens on all addresses


def unwell(settings: Settings, store: Store, roles: Sequence[str]) -> list[str]:
    """Return a sentence for each role of this host that is not well; empty where all are.

    The roles that listen are called at their ports, which need no database; the others are known by their heartbeats.

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
    silent = [role for role in roles if role not in ports]
    beating = _beating(store) if silent or not roles else set()
    wanted = roles or sorted(beating)
    if not wanted:
        return ["no role runs on this host"]
    problems = [f"{role}: no heartbeat" for role in wanted if role not in ports and role not in beating]
    for role in wanted:
        if role in ports and not _listens(settings.bind, ports[role]):
            problems.append(f"{role}: nothing listens on port {ports[role]}")
    return problems


def _beating(store: Store) -> set[str]:
    with store.read() as connection:
        beats = list_services(connection, gone_before(datetime.now(UTC)))
    return {one.role for one in beats if one.host == socket.gethostname()}


def _listens(bind: str, port: int) -> bool:
    try:
        with socket.create_connection((_ANY.get(bind, bind), port), timeout=_CONNECT_S):
            return True
    except OSError:
        return False
