"""What those who help need to know, of the last hours, without patient data.

Rows are named column by column: what is not named here does not leave. UIDs become short digests under a key that is
thrown away: they tell what belongs together and lead nowhere.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import platform
import secrets
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import orjson
import sqlalchemy as sa
from sqlalchemy.engine import Connection

import gateway
from gateway.care.dump import dumped_tables
from gateway.config import Settings
from gateway.store import Store, schema
from gateway.store.services import list_services
from gateway.store.tables import delivery, job, study

_MOST_ROWS = 10_000
_JOB = ("id", "bundle", "revision", "state", "priority", "attempts", "requested_by", "algorithm", "trace_context")
_JOB_TIMES = ("created_at", "available_at", "started_at", "finished_at")
_DELIVERY = ("id", "job_id", "destination", "state", "attempts", "created_at", "finished_at")
_STUDY = ("state", "priority", "revision", "announced_count", "first_received_at", "last_received_at", "completed_at")
_SECRET = ("url", "token", "secret", "password", "key", "client", "bind", "endpoint", "address", "destinations", "aes")
"""Parts of the names of settings whose values stay here."""


def write_support(  # noqa: PLR0913, PLR0917 # what is gathered, by name
    store: Store,
    settings: Settings,
    now: datetime,
    hours: float,
    target: Path,
    more: Mapping[str, Callable[[], object]],
) -> list[str]:
    """Write the archive, readable by its owner alone; return the names of what is in it.

    Parameters
    ----------
    hours
        How far back rows are taken.
    more
        Name -> what gives further content.
    """
    since = now - timedelta(hours=hours)
    hide = _hider()
    parts: dict[str, Callable[[], object]] = {
        "about.json": lambda: _about(now, since),
        "settings.json": lambda: _settings(settings),
        "schema.json": lambda: {"database": schema.current_revision(store), "program": schema.head_revision()},
        "tables.json": lambda: _read(store, _counts),
        "services.json": lambda: _read(store, lambda connection: _services(connection, since)),
        "studies.json": lambda: _read(store, lambda connection: list(_studies(connection, since, hide))),
        "jobs.json": lambda: _read(store, lambda connection: list(_jobs(connection, since, hide))),
        "deliveries.json": lambda: _read(store, lambda connection: list(_deliveries(connection, since))),
        **more,
    }
    handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, gather in parts.items():
            content = gather()
            option = orjson.OPT_INDENT_2
            archive.writestr(name, content if isinstance(content, bytes) else orjson.dumps(content, str, option))
    return list(parts)


def _about(now: datetime, since: datetime) -> Mapping[str, Any]:
    return {
        "made_at": now.isoformat(),
        "since": since.isoformat(),
        "program": gateway.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": {one.name: one.version for one in sorted(distributions(), key=lambda one: one.name.lower())},
    }


def _settings(settings: Settings) -> Mapping[str, Any]:
    return _without_secrets(settings.model_dump(mode="json"))


def _without_secrets(values: Mapping[str, Any]) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            shown[name] = _without_secrets(value)
        elif value is None or isinstance(value, bool | int | float) or not _is_secret(name, value):
            shown[name] = value
        else:
            shown[name] = "set"
    return shown


def _is_secret(name: str, value: object) -> bool:
    """Say whether a value stays here: lists of names of people, hosts and rules do, too."""
    return not isinstance(value, str) or any(part in name for part in _SECRET)


def _read(store: Store, look: Callable[[Connection], object]) -> object:
    with store.read() as connection:
        return look(connection)


def _counts(connection: Connection) -> Mapping[str, int]:
    tables = dumped_tables()
    return {str(one.name): connection.scalar(sa.select(sa.func.count()).select_from(one)) or 0 for one in tables}


def _services(connection: Connection, since: datetime) -> Sequence[Mapping[str, Any]]:
    shown = ("role", "pid", "started_at", "seen_at", "state", "reason", "counters")
    return [{name: getattr(one, name) for name in shown} for one in list_services(connection, since)]


def _studies(connection: Connection, since: datetime, hide: Callable[[str], str]) -> Iterator[Mapping[str, Any]]:
    query = sa.select(study).where(study.c.last_received_at >= since).limit(_MOST_ROWS)
    for row in connection.execute(query).mappings():
        yield {"study": hide(row["study_instance_uid"]), **{name: row[name] for name in _STUDY}}


def _jobs(connection: Connection, since: datetime, hide: Callable[[str], str]) -> Iterator[Mapping[str, Any]]:
    query = sa.select(job).where(job.c.created_at >= since).order_by(job.c.created_at).limit(_MOST_ROWS)
    for row in connection.execute(query).mappings():
        shown = {name: row[name] for name in (*_JOB, *_JOB_TIMES)}
        yield {"study": hide(row["study_instance_uid"]), **shown, "reason_kind": _kind(row["reason"])}


def _deliveries(connection: Connection, since: datetime) -> Iterator[Mapping[str, Any]]:
    query = sa.select(delivery).where(delivery.c.created_at >= since).limit(_MOST_ROWS)
    for row in connection.execute(query).mappings():
        yield {**{name: row[name] for name in _DELIVERY}, "reason_kind": _kind(row["reason"])}


def _kind(reason: str | None) -> str | None:
    """Return the first word of a reason, which is ours; the rest may quote what a person wrote."""
    return None if reason is None else reason.partition(" ")[0].rstrip(":")[:40]


def _hider() -> Callable[[str], str]:
    key = secrets.token_bytes(32)
    return lambda uid: hmac.new(key, uid.encode(), hashlib.sha256).hexdigest()[:16]
