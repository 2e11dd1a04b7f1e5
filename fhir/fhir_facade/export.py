"""Bulk export: all current resources of some types as newline-delimited JSON (FHIR Bulk Data Access, 2.0).

One thread for each process writes one export at a time, into the data folder, which processes share. A process that
dies leaves its export to the next one that looks. Files go with their export: when it is deleted, or a day later.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import sqlalchemy as sa
import structlog
from sqlalchemy.engine import Connection

from fhir_facade.compartment import COMPARTMENTS
from fhir_facade.parameters import PARAMETERS
from fhir_facade.rows import resource_rows
from gateway.errors import GatewayError
from gateway.store import Store
from gateway.store.fhir_exports import (
    DELETED,
    ExportRow,
    claim_export,
    end_export,
    expired_exports,
    note_progress,
    remove_export,
)
from gateway.store.tables import fhir_index, fhir_resource

log = structlog.get_logger()

FOLDER = "exports"
KEPT = timedelta(days=1)
_SILENCE = timedelta(minutes=2)
_BATCH = 1000


class CancelledError(Exception):
    """The export was deleted while it was written."""


class Exporter:
    """Writes the exports that wait, in a thread that ends when none is left.

    Parameters
    ----------
    store
        Where resources and exports are.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def wake(self) -> None:
        """See to it that what waits is written."""
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._write_waiting, name="fhir-export", daemon=True)
                self._thread.start()

    def wait(self, timeout_s: float) -> None:
        """Wait until nothing is written any more."""
        thread = self._thread
        if thread is not None:
            thread.join(timeout_s)

    def folder(self, export_id: str) -> Path:
        """Return where the files of an export lie."""
        return self._store.data_dir / FOLDER / export_id

    def remove(self, export_id: str) -> bool:
        """Forget an export and its files; False where there is none."""
        with self._store.write() as connection:
            is_known = remove_export(connection, export_id)
        if is_known:
            shutil.rmtree(self.folder(export_id), ignore_errors=True)
        return is_known

    def _write_waiting(self) -> None:
        try:
            self._remove_expired()
            while (row := self._claim()) is not None:
                self._write(row)
        except GatewayError as error:
            # The row stays: the next request that asks for it starts a thread again.
            log.warning("fhir.export_away", reason=str(error))

    def _claim(self) -> ExportRow | None:
        with self._store.write() as connection:
            return claim_export(connection, datetime.now(UTC), _SILENCE)

    def _remove_expired(self) -> None:
        with self._store.read() as connection:
            expired = expired_exports(connection, datetime.now(UTC) - KEPT)
        for export_id in expired:
            self.remove(export_id)

    def _write(self, row: ExportRow) -> None:
        folder = self.folder(row.id)
        files: list[dict[str, int | str]] = []
        try:
            folder.mkdir(parents=True, exist_ok=True)
            written = 0
            for resource_type in row.types:
                count = self._write_type(row, resource_type, folder / f"{resource_type}.ndjson", written)
                written += count
                files += [{"type": resource_type, "count": count}] if count else []
            if row.since is not None:
                count = self._write_deleted(row, folder / f"{DELETED}.ndjson")
                files += [{"type": DELETED, "count": count}] if count else []
        except CancelledError:
            shutil.rmtree(folder, ignore_errors=True)
            return
        except OSError as error:
            log.error("fhir.export_failed", export_id=row.id, error=type(error).__name__, reason=error.strerror)
            self._end(row, "failed", [])
            return
        self._end(row, "done", files)
        log.info("fhir.export_done", export_id=row.id, resources=written)

    def _end(self, row: ExportRow, state: str, files: list[dict[str, int | str]]) -> None:
        with self._store.write() as connection:
            end_export(connection, row.id, datetime.now(UTC), "done" if state == "done" else "failed", files)

    def _write_type(self, row: ExportRow, resource_type: str, path: Path, before: int) -> int:
        """Write the resources of a type and return how many there were."""
        count, last = 0, 0
        with path.open("wb") as file:
            while True:
                with self._store.read() as connection:
                    batch = list(_batch(connection, row, resource_type, last))
                for number, body in batch:
                    file.write(body + b"\n")
                    last = number
                count += len(batch)
                with self._store.write() as connection:
                    if not note_progress(connection, row.id, datetime.now(UTC), before + count):
                        raise CancelledError
                if len(batch) < _BATCH:
                    return count

    def _write_deleted(self, row: ExportRow, path: Path) -> int:
        """Write what is gone since then, as Bundles that would delete it, and return how many Bundles there are."""
        count, last = 0, 0
        with path.open("wb") as file:
            while True:
                with self._store.read() as connection:
                    batch = connection.execute(_deleted(row, last)).all()
                if not batch:
                    return count
                requests = [{"method": "DELETE", "url": f"{each.type}/{each.resource_id}"} for each in batch]
                entries = [{"request": each} for each in requests]
                file.write(orjson.dumps({"resourceType": "Bundle", "type": "transaction", "entry": entries}) + b"\n")
                count, last = count + 1, batch[-1].id


def export_types(*, patients_only: bool) -> tuple[str, ...]:
    """Return the types that an export holds unless it says so."""
    members = COMPARTMENTS["Patient"]
    return tuple(name for name in PARAMETERS if name in members or (not patients_only and name not in _LEFT_OUT))


_LEFT_OUT = frozenset({"Binary", "Subscription"})
"""Files are fetched by themselves; subscriptions hold their owners' addresses and headers."""


def _batch(connection: Connection, row: ExportRow, resource_type: str, last: int) -> Iterator[tuple[int, bytes]]:
    """Yield the next resources after a number: current ones, in their order."""
    query = (
        sa.select(fhir_resource.c.id, fhir_resource.c.body)
        .where(fhir_resource.c.type == resource_type, fhir_resource.c.is_current, fhir_resource.c.id > last)
        .order_by(fhir_resource.c.id)
        .limit(_BATCH)
    )
    if row.since is not None:
        query = query.where(fhir_resource.c.last_updated > row.since)
    if row.patients_only and resource_type != "Patient":
        names = [
            name
            for parameter in COMPARTMENTS["Patient"][resource_type]
            for name in PARAMETERS[resource_type][parameter].indexed_as
        ]
        belongs = sa.select(fhir_index.c.id).where(
            fhir_index.c.resource_pk == fhir_resource.c.id,
            fhir_index.c.parameter.in_(names),
            fhir_index.c.system == "Patient",
        )
        query = query.where(belongs.exists())
    for found in connection.execute(query):
        yield found.id, found.body


def _deleted(row: ExportRow, last: int) -> sa.Select[Any]:
    """Return the query for the next versions that say a resource is gone, and that stand."""
    other = resource_rows()
    came_again = sa.exists().where(
        other.c.type == fhir_resource.c.type, other.c.resource_id == fhir_resource.c.resource_id, other.c.is_current
    )
    return (
        sa.select(fhir_resource.c.id, fhir_resource.c.type, fhir_resource.c.resource_id)
        .where(fhir_resource.c.type.in_(row.types), fhir_resource.c.is_deleted, ~came_again)
        .where(fhir_resource.c.last_updated > row.since, fhir_resource.c.id > last)
        .order_by(fhir_resource.c.id)
        .limit(_BATCH)
    )
