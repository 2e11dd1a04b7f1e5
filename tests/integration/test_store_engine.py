"""Which errors of the database count as its absence; and that the threads which depend on it outlive all of them."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa
from structlog.testing import capture_logs

from gateway.errors import DatabaseAwayError
from gateway.lease import LeaseKeeper
from gateway.services import Counters, Heartbeat
from gateway.store import Store, open_store
from gateway.store.engine import insert_ignore
from gateway.store.tables import quarantine, study

NAME = "Doe^Jane"


@pytest.mark.parametrize("statement", ["SELECT * FROM nowhere", "SELECT nothing FROM study"])
def test_a_schema_that_does_not_fit_counts_as_away(store: Store, statement: str) -> None:
    """A missing table or column may be there after an upgrade: what waits goes on waiting."""
    with pytest.raises(DatabaseAwayError), store.read() as connection:
        connection.execute(sa.text(statement))


@pytest.mark.parametrize(
    "statement", ["SELECT * FROM nowhere", "SELECT 1 FROM gone.study", "SELECT nothing FROM study"]
)
def test_postgres_says_what_to_do_about_its_schema(postgres_store: Store, statement: str) -> None:
    """The message names the command that mends it."""
    with pytest.raises(DatabaseAwayError, match="hybridmed db upgrade"), postgres_store.read() as connection:
        connection.execute(sa.text(statement))


def test_a_database_that_may_only_be_read_counts_as_away(postgres_store: Store) -> None:
    """A standby that was not promoted yet answers with an internal error: it passes."""
    with pytest.raises(DatabaseAwayError), postgres_store.write() as connection:
        connection.execute(sa.text("SET TRANSACTION READ ONLY"))
        connection.execute(sa.delete(study))


def test_other_errors_of_the_program_are_told_as_they_are(postgres_store: Store) -> None:
    """A statement that no upgrade mends is no absence."""
    with pytest.raises(sa.exc.ProgrammingError), postgres_store.read() as connection:
        connection.execute(sa.text("SELEKT 1"))


def test_ignored_rows_are_not_counted(store: Store) -> None:
    """On both databases, and whether or not the table makes its keys itself."""
    row = {"path": "quarantine/a", "size_bytes": 1, "reason": "", "calling_ae": "", "quarantined_at": datetime.now(UTC)}
    with store.write() as connection:
        assert insert_ignore(connection, quarantine, [row, row | {"path": "quarantine/b"}], keys=["path"]) == 2
        assert insert_ignore(connection, quarantine, [row, row | {"path": "quarantine/c"}], keys=["path"]) == 1


def test_an_exhausted_pool_counts_as_away(tmp_path: Path) -> None:
    """No connection within the pool's time: away, for the moment."""
    engine = sa.create_engine(
        f"sqlite:///{tmp_path / 'x.db'}", poolclass=sa.pool.QueuePool, pool_size=1, max_overflow=0, pool_timeout=0.1
    )
    exhausted = Store(engine, tmp_path)

    with exhausted.read(), pytest.raises(DatabaseAwayError, match="free"), exhausted.read():
        pass
    exhausted.close()


def test_errors_hide_their_parameters(store: Store) -> None:
    """What the database refuses is told without the values, which are patients' data."""
    with pytest.raises(sa.exc.IntegrityError) as caught, store.write() as connection:
        connection.execute(sa.insert(study), {"study_instance_uid": "1.2", "patient_name": NAME})

    assert "parameters hidden" in str(caught.value)
    assert f"'{NAME}'" not in str(caught.value)


def test_a_vanished_server_is_found_out() -> None:
    """A connection to PostgreSQL probes a silent peer and gives up on unanswered data."""
    opened = open_store("postgresql://nobody@127.0.0.1:1/none", Path.cwd())
    given: dict[str, object] = {}

    @sa.event.listens_for(opened.engine, "do_connect")
    def _note(_dialect: object, _record: object, _arguments: object, options: dict[str, object]) -> None:
        given.update(options)

    with pytest.raises(DatabaseAwayError), opened.read():
        pass

    assert given["tcp_user_timeout"] == 30_000
    assert (given["keepalives"], given["keepalives_idle"], given["keepalives_interval"]) == (1, 30, 10)


def test_a_heartbeat_outlives_what_the_database_refuses(sqlite_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that is no absence is noted by its class, and the next beat is tried."""
    tried = threading.Semaphore(0)

    def refuse(*_: object) -> None:
        tried.release()
        raise sa.exc.DataError("insert", {}, ValueError(NAME))

    monkeypatch.setattr("gateway.services.beat", refuse)
    monkeypatch.setattr("gateway.services.BEAT_S", 0.01)
    with capture_logs() as lines, Heartbeat(sqlite_store, "work", Counters()):
        assert all(tried.acquire(timeout=10) for _ in range(3))

    assert lines[0]["error"] == "DataError"
    assert NAME not in str(lines)


def test_renewals_outlive_what_the_database_refuses() -> None:
    """The lease is not lost, and the next renewal is tried."""
    tried = threading.Semaphore(0)

    def refuse(_claim: str) -> bool:
        tried.release()
        raise sa.exc.DataError("update", {}, ValueError(NAME))

    with capture_logs() as lines, LeaseKeeper(refuse, 0.01, "leases") as keeper:
        lease = keeper.hold("claim")
        assert all(tried.acquire(timeout=10) for _ in range(3))

    assert not lease.is_lost
    assert lines[0]["error"] == "DataError"
    assert NAME not in str(lines)
