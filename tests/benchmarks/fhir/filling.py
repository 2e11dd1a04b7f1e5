"""A database with any number of reports, written by templates: one resource of each kind is made as the worker does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import sqlalchemy as sa
from fhir_facade.index import index_entries

from gateway.store import Store
from gateway.store.results import IndexEntry, stamped
from gateway.store.tables import fhir_index, fhir_resource
from tests import fhir_made as made

FIRST_DAY = datetime(2023, 1, 1, tzinfo=UTC)
DAYS = 1095
REPORTS_PER_PATIENT = 4
_SENTINEL = 123456789
_BATCH = 2000


def day_of(number: int, count: int) -> datetime:
    """Return when a study was made: they come in order, over three years."""
    return FIRST_DAY + timedelta(days=number * DAYS // (count + 1))


def fill(store: Store, count: int) -> None:
    """Write as many reports, each with a study and an Observation, and a Patient for every four."""
    indexes = [index for table in (fhir_resource, fhir_index) for index in table.indexes]
    with store.write() as connection:
        for index in indexes:
            index.drop(connection)
    resources: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    for number, (body, entries, key) in enumerate(_resources(count), 1):
        resources.append(_resource_row(number, body, key))
        rows += [{**entry, "resource_pk": number, "type": key[0]} for entry in entries]
        if len(resources) == _BATCH:
            _insert(store, resources, rows)
            resources, rows = [], []
    _insert(store, resources, rows)
    with store.write() as connection:
        for index in indexes:
            index.create(connection)
        if connection.dialect.name == "postgresql":
            for table in (fhir_resource, fhir_index):
                connection.execute(sa.text(f"SELECT setval(pg_get_serial_sequence('{table.name}', 'id'), 1000000000)"))
    if store.engine.dialect.name == "postgresql":  # where it does so by itself; SQLite never does
        with store.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(sa.text("VACUUM ANALYZE"))


def _insert(store: Store, resources: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]]) -> None:
    if not resources:
        return
    with store.write() as connection:
        connection.execute(sa.insert(fhir_resource), resources)
        connection.execute(sa.insert(fhir_index), rows)


def _resource_row(number: int, body: bytes, key: tuple[str, str]) -> dict[str, Any]:
    return {
        "id": number,
        "type": key[0],
        "resource_id": key[1],
        "version": 1,
        "is_current": True,
        "last_updated": made.NOW,
        "body": body,
    }


class _Template:
    """One resource with its index; every other of its kind differs in the number and the day alone."""

    def __init__(self, make: Callable[[int], made.Json]) -> None:
        content = make(_SENTINEL)
        self._type = content["resourceType"]
        self._id = content["id"]
        self._body = stamped(orjson.dumps(content), 1, made.NOW)
        entries = index_entries(content, UTC)
        self._entries = [replace(entry, low=None, high=None) if _is_study_day(entry) else entry for entry in entries]

    def make(self, number: int, day: datetime, patient: int) -> tuple[bytes, list[dict[str, Any]], tuple[str, str]]:
        """Return body, index and key of one."""
        key = (self._type, self._id.replace(str(_SENTINEL), str(number)))
        body = self._body.replace(f"pat-{_SENTINEL}".encode(), f"pat-{patient}".encode())
        body = body.replace(str(_SENTINEL).encode(), str(number).encode())
        body = body.replace(_STUDY_DAY.encode(), day.date().isoformat().encode())
        return body, [self._row(entry, number, day, patient) for entry in self._entries], key

    def _row(self, entry: IndexEntry, number: int, day: datetime, patient: int) -> dict[str, Any]:
        row = asdict(entry)
        if _is_study_day(entry):
            row["low"], row["high"] = day, day + timedelta(days=1)
        for name in ("value", "text", "other_value"):
            if row[name] and str(_SENTINEL) in row[name]:
                row[name] = row[name].replace(f"pat-{_SENTINEL}", f"pat-{patient}").replace(str(_SENTINEL), str(number))
        return row


_STUDY_DAY = "2026-05-05"


def _is_study_day(entry: IndexEntry) -> bool:
    return entry.parameter in ("date", "started")


def _resources(count: int) -> Iterator[tuple[bytes, list[dict[str, Any]], tuple[str, str]]]:
    patients = _Template(made.patient)
    studies = [_Template(lambda number, at=at: _study(number, at)) for at in range(2)]
    reports = [_Template(lambda number, at=at: _report(number, at)) for at in range(6)]
    observations = _Template(lambda number: made.observation(number, "100", effectiveDateTime=_STUDY_DAY))
    yield _Template(lambda _number: made.DEVICE).make(0, FIRST_DAY, 0)
    for number in range(1, count + 1):
        day, patient = day_of(number, count), (number - 1) // REPORTS_PER_PATIENT + 1
        if (number - 1) % REPORTS_PER_PATIENT == 0:
            yield patients.make(patient, day, patient)
        yield studies[number % 2].make(number, day, patient)
        yield observations.make(number, day, patient)
        yield reports[number % 6].make(number, day, patient)


def _study(number: int, at: int) -> made.Json:
    series = [{"uid": f"2.25.{number}.1", "modality": {"code": "CT" if at else "DX"}}]
    return made.study(number, started=_STUDY_DAY, series=series)


def _report(number: int, at: int) -> made.Json:
    return made.report(
        number, **{name: made.report(at)[name] for name in ("status", "code")}, effectiveDateTime=_STUDY_DAY
    )
