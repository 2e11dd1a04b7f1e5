"""Gateways whose index was filled row by row, without files: a small one and a large one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from gateway.store import open_store
from gateway.store.schema import upgrade
from gateway.store.tables import instance, series, study
from tests.acceptance.gateway_process import GatewayProcess
from tests.benchmarks.dicomweb.servers import LIMITS_OFF, Server
from tests.stores import NOON

_ROOT = "1.2.826.0.1.3680043.10.1461.8"
_ROWS_AT_ONCE = 5000


@contextmanager
def indexed_gateway(home: Path, studies: int) -> Iterator[Server]:
    """Run a gateway whose index holds so many studies of one series with two instances each."""
    running = GatewayProcess(home, roles="web", HYBRIDMED_WEB_PROCESSES="1", **LIMITS_OFF)
    running.data_dir.mkdir(parents=True)
    fill(running.data_dir, studies)
    try:
        running.start()
        yield Server(f"gateway, {studies:,} studies", running.http_port, "/dicomweb", (running.role_pid("web"),))
    finally:
        running.stop()


def fill(data_dir: Path, studies: int) -> None:
    """Make the database, with these rows."""
    store = open_store(f"sqlite:///{data_dir / 'hybridmed.db'}", data_dir)
    try:
        upgrade(store)
        for start in range(1, studies + 1, _ROWS_AT_ONCE):
            numbers = range(start, min(start + _ROWS_AT_ONCE, studies + 1))
            with store.write() as connection:
                connection.execute(sa.insert(study), [_study(number) for number in numbers])
                connection.execute(sa.insert(series), [_series(number) for number in numbers])
                connection.execute(sa.insert(instance), [_instance(n, k) for n in numbers for k in (1, 2)])
        with store.write() as connection:
            connection.execute(sa.text("ANALYZE"))
    finally:
        store.close()


def _study(number: int) -> dict[str, Any]:
    name = f"Bench^Number{number:06}"
    received = NOON + timedelta(seconds=number)
    return {column.name: "" for column in study.c if isinstance(column.type, sa.String)} | {
        "study_instance_uid": f"{_ROOT}.{number}",
        "patient_id": f"B{number:06}",
        "patient_name": name,
        "patient_name_folded": f"={name.lower()}=",
        "accession_number": f"A{number:06}",
        "study_date": f"20{10 + number % 15:02}{1 + number % 12:02}{1 + number % 28:02}",
        "study_time": f"{number % 24:02}{number % 60:02}00",
        "study_description": "Chest",
        "calling_ae": "CT1",
        "state": "routed",
        "state_reason": None,
        "priority": "routine",
        "revision": 1,
        "first_received_at": received,
        "last_received_at": received,
    }


def _series(number: int) -> dict[str, Any]:
    return {column.name: "" for column in series.c if isinstance(column.type, sa.String)} | {
        "study_instance_uid": f"{_ROOT}.{number}",
        "series_instance_uid": f"{_ROOT}.{number}.1",
        "modality": ("CT", "MR", "DX")[number % 3],
        "series_number": 1,
    }


def _instance(number: int, position: int) -> dict[str, Any]:
    uid = f"{_ROOT}.{number}.1.{position}"
    return {
        "sop_instance_uid": uid,
        "digest": uid,
        "sop_class_uid": "1.2.840.10008.5.1.4.1.1.2",
        "transfer_syntax_uid": "1.2.840.10008.1.2.1",
        "study_instance_uid": f"{_ROOT}.{number}",
        "series_instance_uid": f"{_ROOT}.{number}.1",
        "instance_number": position,
        "path": f"instances/{uid}.dcm",
        "size_bytes": 1,
        "is_current": True,
        "study_revision": 1,
        "association_id": "a1",
        "calling_ae": "CT1",
        "received_at": NOON,
    }
