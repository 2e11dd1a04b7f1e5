"""Which errors of the database count as its absence; and that the threads which depend on it outlive all of them."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from structlog.testing import capture_logs

from gateway.errors import DatabaseAwayError
from gateway.lease import LeaseKeeper
from gateway.services import Counters, Heartbeat
from gateway.store import Store, open_store
from gateway.store.answering import AnsweringConnection
from gateway.store.commits import Commits
from gateway.store.engine import insert_ignore, waiting_for_ever
from gateway.store.tables import quarantine, study
from tests.acceptance.faults.proxy import Proxy
from tests.services.process import HANGS_S, LOOPBACK

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


def test_a_server_that_falls_silent_counts_as_away(postgres_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its host is there and takes what is sent, but no answer comes: the connection is given up, the next serves."""
    url = postgres_store.engine.url
    with Proxy(url.port or 5432) as proxy:
        store = open_store(_behind(url, proxy), postgres_store.data_dir)
        with store.read() as connection:
            connection.execute(sa.text("SELECT 1"))
            proxy.mode = "stall"
            monkeypatch.setattr(AnsweringConnection, "silence_s", 1.0)
            with pytest.raises(sa.exc.OperationalError, match="has said nothing for 1 s"):
                connection.execute(sa.text("SELECT 2"))
        with pytest.raises(DatabaseAwayError), store.read():
            pass

        monkeypatch.undo()
        proxy.mode = "pass"
        with store.read() as connection:
            assert connection.scalar(sa.text("SELECT 3")) == 3
        store.close()


def test_an_answer_may_take_long_where_it_comes_in_pieces(
    postgres_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is silence that is limited, and not even that where the schema is changed."""
    rows = sa.text("SELECT repeat('x', 100000), pg_sleep(0.01) FROM generate_series(1, 600)")
    with postgres_store.read() as connection:
        monkeypatch.setattr(AnsweringConnection, "silence_s", 4.0)
        assert len(connection.execute(rows).all()) == 600
        with waiting_for_ever(connection):
            connection.execute(sa.text("SELECT pg_sleep(6)"))


def _behind(url: sa.URL, proxy: Proxy) -> str:
    return url.set(host=LOOPBACK, port=proxy.port).render_as_string(hide_password=False)


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


def test_a_vanished_server_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection to PostgreSQL probes a silent peer and gives up on unanswered data."""
    opened = open_store("postgresql://nobody@127.0.0.1:1/none", Path.cwd())
    given: dict[str, object] = {}

    def note(*_arguments: object, **options: object) -> None:
        given.update(options)
        raise psycopg.OperationalError

    monkeypatch.setattr(AnsweringConnection, "connect", note)
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
        assert all(tried.acquire(timeout=120) for _ in range(3))

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
        assert all(tried.acquire(timeout=120) for _ in range(3))

    assert not lease.is_lost
    assert lines[0]["error"] == "DataError"
    assert NAME not in str(lines)


def test_a_loop_that_was_told_of_a_commit_looks_once_more(sqlite_store: Store) -> None:
    """The log grows before what it holds can be read; then the loop rests until it is told again."""

    def commit(path: str) -> None:
        row = {"path": path, "size_bytes": 1, "reason": "", "calling_ae": "", "quarantined_at": datetime.now(UTC)}
        with sqlite_store.write() as connection:
            connection.execute(sa.insert(quarantine).values(**row))

    commit("quarantine/a")  # before the first one there is no log
    commits, stop = Commits(sqlite_store), threading.Event()
    commits.wait(stop, 0.01)
    assert commits.idle_s(0.1) == 1.0

    commit("quarantine/b")
    commits.wait(stop, HANGS_S)
    assert commits.idle_s(0.1) == 0.1

    commits.wait(stop, 0.01)
    assert commits.idle_s(0.1) == 1.0


def test_a_loop_whose_database_tells_nothing_keeps_looking(postgres_store: Store) -> None:
    """Nobody tells it of what others commit."""
    commits = Commits(postgres_store)
    commits.wait(threading.Event(), 0.01)

    assert commits.idle_s(0.1) == 0.1
