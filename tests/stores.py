"""The fixture `store`: a fresh, migrated database on SQLite and on PostgreSQL; and rows to begin with."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from gateway.person_name import folded
from gateway.store import Store, open_store
from gateway.store.engine import upsert_sums
from gateway.store.schema import upgrade
from gateway.store.tables import association, association_content, instance, series, service, study
from tests.services import postgres

NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give an SQLite file with all tables and no row."""
    folder = tmp_path_factory.mktemp("migrated")
    made = open_store(f"sqlite:///{folder / 'empty.db'}", folder)
    upgrade(made)
    made.close()
    return folder / "empty.db"


@pytest.fixture
def sqlite_store(tmp_path: Path, migrated_sqlite: Path) -> Iterator[Store]:
    """Give a fresh, migrated database on SQLite."""
    shutil.copyfile(migrated_sqlite, tmp_path / "hybridmed.db")
    opened = open_store(f"sqlite:///{tmp_path / 'hybridmed.db'}", tmp_path)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def migrated_postgres(
    postgres_server: postgres.PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Give the name of a PostgreSQL database with all tables and no row, to which nobody is connected."""
    with postgres.database(postgres_server.port) as url:
        made = open_store(url, tmp_path_factory.mktemp("migrated"))
        upgrade(made)
        made.close()
        yield url.rpartition("/")[2]


@pytest.fixture
def postgres_store(postgres_server: postgres.PostgresServer, migrated_postgres: str, tmp_path: Path) -> Iterator[Store]:
    """Give a fresh, migrated database on PostgreSQL."""
    with postgres.database(postgres_server.port, template=migrated_postgres) as url:
        opened = open_store(url, tmp_path)
        yield opened
        opened.close()


@pytest.fixture(params=["sqlite_store", "postgres_store"])
def store(request: pytest.FixtureRequest) -> Store:
    """Give a fresh, migrated database, once on SQLite and once on PostgreSQL."""
    opened: Store = request.getfixturevalue(request.param)
    return opened


def add_study(connection: sa.Connection, uid: str, **values: Any) -> None:
    """Insert a study that is complete; `values` replace columns."""
    row: dict[str, Any] = {column.name: "" for column in study.c if isinstance(column.type, sa.String)}
    row |= {"study_instance_uid": uid, "state": "routed", "state_reason": None, "priority": "routine", "revision": 1}
    row |= {"calling_ae": "CT1", "first_received_at": NOON, "last_received_at": NOON}
    row |= values
    names = {f"{name}_folded": folded(row[name]) for name in ("patient_name", "referring_physician")}
    connection.execute(sa.insert(study).values(**row | names))


def add_series(connection: sa.Connection, study_uid: str, uid: str, modality: str = "CT", **values: Any) -> None:
    """Insert a series without instances; `values` replace columns."""
    row: dict[str, Any] = {column.name: "" for column in series.c if isinstance(column.type, sa.String)}
    row |= {"study_instance_uid": study_uid, "series_instance_uid": uid, "modality": modality}
    connection.execute(sa.insert(series).values(**row | values))


def add_instance(connection: sa.Connection, study_uid: str, series_uid: str, uid: str, **values: Any) -> None:
    """Insert a current instance whose file need not exist; `values` replace columns."""
    row: dict[str, Any] = {
        "sop_instance_uid": uid,
        "digest": uid,
        "sop_class_uid": "1.2.840.10008.5.1.4.1.1.2",
        "transfer_syntax_uid": "1.2.840.10008.1.2.1",
        "study_instance_uid": study_uid,
        "series_instance_uid": series_uid,
        "path": f"instances/{uid}.dcm",
        "size_bytes": 1,
        "is_current": True,
        "study_revision": 1,
        "association_id": "a1",
        "calling_ae": "CT1",
        "received_at": NOON,
    }
    row |= values
    connection.execute(sa.insert(instance).values(**row))
    carried = {name: row[name] for name in ("association_id", "study_instance_uid", "sop_class_uid")}
    upsert_sums(connection, association_content, [carried | {"instances": 1}], keys=list(carried), add="instances")


def add_association(connection: sa.Connection, uid: str, **values: Any) -> None:
    """Insert an open association; `values` replace columns."""
    row = {"id": uid, "service_id": "r1", "calling_ae": "CT1", "called_ae": "HYBRIDMED", "opened_at": NOON}
    connection.execute(sa.insert(association).values(**row | values))


def add_service(connection: sa.Connection, uid: str, seen_at: datetime, role: str = "receive") -> None:
    """Insert the heartbeat of a role."""
    row = {"id": uid, "role": role, "host": "h", "pid": 1, "started_at": NOON, "seen_at": seen_at, "state": "ready"}
    connection.execute(sa.insert(service).values(**row, counters={}))
