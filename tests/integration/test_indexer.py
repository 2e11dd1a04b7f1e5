"""The indexer's thread: order, batches, and what it does with what the database will not have."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa
from pydicom.dataset import Dataset
from typer.testing import CliRunner

from gateway.association import Limits, Listening, Receiver
from gateway.care.reindex import put_back as put_back_unindexed
from gateway.care.reindex import unindexed
from gateway.cli.app import app
from gateway.errors import NotFoundError
from gateway.header import read_header
from gateway.indexer import Arrival, Indexer
from gateway.quarantine import put_back
from gateway.services import Counters, Heartbeat
from gateway.spool import DiskLimits, Origin, Spool, orphans
from gateway.store import Store
from gateway.store.instances import ClosedAssociation, OpenedAssociation
from gateway.store.quarantine import QuarantinedFile, add_quarantined, count_quarantined, list_quarantined
from gateway.store.tables import association, instance, quarantine, removal
from tests.receiving import EXPLICIT, encoded, image, kept_files, rows, spooled_files

NO_LIMIT = DiskLimits(0, 1 << 40)
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


def _arrival(spool: Spool, data_set: Dataset, number: int) -> Arrival:
    origin = Origin("a1", "CT1", "HYBRIDMED", EXPLICIT, data_set.SOPClassUID, data_set.SOPInstanceUID)
    upload = spool.begin(origin, number)
    upload.write(encoded(data_set))
    spooled = upload.commit()
    return Arrival(spooled, read_header(spooled.path))


def test_everything_submitted_is_indexed_before_it_ends(local_store: Store) -> None:
    """More than a batch of instances between an association's open and close: all in the index on leaving."""
    heartbeat = Heartbeat(local_store, "receive", Counters())
    study = image().StudyInstanceUID

    with Spool(local_store.data_dir, "s1", NO_LIMIT) as spool, Indexer(local_store, heartbeat) as indexer:
        indexer.submit(OpenedAssociation("a1", "s1", "CT1", "HYBRIDMED", NOON))
        for number in range(230):
            indexer.submit(_arrival(spool, image(study), number))
        indexer.submit(ClosedAssociation("a1", "released", NOON))
    with local_store.read() as connection:
        outcome = connection.execute(sa.select(association.c.outcome)).scalar_one()

    assert len(rows(local_store)) == len(kept_files(local_store)) == 230
    assert spooled_files(local_store) == []
    assert outcome == "released"
    assert heartbeat.counters.snapshot()["hybridmed_instances_indexed_total"] == 230


def test_what_comes_while_too_much_waits_is_found_on_disk(local_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the database away, memory holds so many and no more; all are indexed before their association is closed."""
    monkeypatch.setattr("gateway.indexer._MOST_WAITING", 5)
    heartbeat = Heartbeat(local_store, "receive", Counters())
    study = image().StudyInstanceUID
    is_away = threading.Event()
    monkeypatch.setattr(heartbeat, "degraded", lambda *_: is_away.set())
    present = local_store.engine

    with Spool(local_store.data_dir, "s1", NO_LIMIT) as spool, Indexer(local_store, heartbeat) as indexer:
        local_store.engine = sa.create_engine("postgresql+psycopg://postgres@127.0.0.1:1/none")
        indexer.submit(OpenedAssociation("a1", "s1", "CT1", "HYBRIDMED", NOON))
        assert is_away.wait(20)
        for number in range(40):
            indexer.submit(_arrival(spool, image(study), number))
        waiting = indexer._queue.qsize()
        indexer.submit(ClosedAssociation("a1", "released", NOON))
        local_store.engine = present
        while spooled_files(local_store) and indexer.is_alive:
            threading.Event().wait(0.05)
    with local_store.read() as connection:
        outcome = connection.execute(sa.select(association.c.outcome)).scalar_one()

    assert waiting <= 6
    assert indexer.is_drained
    assert len(rows(local_store)) == len(kept_files(local_store)) == 40
    assert outcome == "released"


def test_what_the_database_will_not_have_goes_to_quarantine(local_store: Store) -> None:
    """One instance that violates a constraint is put aside with the reason; the others of its batch are indexed."""
    heartbeat = Heartbeat(local_store, "receive", Counters())

    with Spool(local_store.data_dir, "s1", NO_LIMIT) as spool:
        good = [_arrival(spool, image(), number) for number in range(3)]
        bad = _arrival(spool, image(), 9)
        broken = replace(bad, header=replace(bad.header, transfer_syntax_uid=None))  # type: ignore[arg-type] # on purpose
        with Indexer(local_store, heartbeat) as indexer:
            for arrival in (good[0], broken, *good[1:]):
                indexer.submit(arrival)
    with local_store.read() as connection:
        listed = connection.execute(sa.select(quarantine)).one()

    assert len(rows(local_store)) == 3
    assert (listed.path, listed.calling_ae) == (f"quarantine/{bad.spooled.path.name}", "CT1")
    assert "IntegrityError" in listed.reason
    assert (local_store.data_dir / listed.path).exists()
    assert spooled_files(local_store) == []


def test_files_stay_in_the_spool_when_the_end_comes_without_a_database(local_store: Store) -> None:
    """Ending with the database away does not wait for it: the files stay where a restart finds them."""
    heartbeat = Heartbeat(local_store, "receive", Counters())
    present = local_store.engine

    with Spool(local_store.data_dir, "s1", NO_LIMIT) as spool:
        arrival = _arrival(spool, image(), 1)
        local_store.engine = sa.create_engine("postgresql+psycopg://postgres@127.0.0.1:1/none")
        with Indexer(local_store, heartbeat) as indexer:
            indexer.submit(arrival)
    local_store.engine = present

    assert not indexer.is_drained
    assert spooled_files(local_store) == [arrival.spooled.path]
    assert rows(local_store) == []


def test_a_refused_quarantine_is_tried_again(local_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database refuses the instance and then, once, the row of its quarantine: the thread goes on."""
    heartbeat = Heartbeat(local_store, "receive", Counters())
    refusals = [sa.exc.DataError("insert", {}, ValueError("Doe^Jane"))]
    reasons: list[str] = []

    def add(connection: sa.Connection, row: QuarantinedFile) -> None:
        if refusals:
            raise refusals.pop()
        add_quarantined(connection, row)

    monkeypatch.setattr("gateway.indexer.add_quarantined", add)
    monkeypatch.setattr(heartbeat, "degraded", lambda _part, reason: reasons.append(reason))
    with Spool(local_store.data_dir, "s1", NO_LIMIT) as spool:
        bad, good = _arrival(spool, image(), 1), _arrival(spool, image(), 2)
        broken = replace(bad, header=replace(bad.header, transfer_syntax_uid=None))  # type: ignore[arg-type] # on purpose
        with Indexer(local_store, heartbeat) as indexer:
            indexer.submit(broken)
            indexer.submit(good)
            while spooled_files(local_store) and indexer.is_alive:
                threading.Event().wait(0.05)
    with local_store.read() as connection:
        listed = connection.execute(sa.select(quarantine.c.path)).scalars().all()

    assert reasons == ["DataError"]
    assert listed == [f"quarantine/{bad.spooled.path.name}"]
    assert len(rows(local_store)) == 1
    assert indexer.is_drained


def test_text_that_the_driver_cannot_encode_goes_to_quarantine(local_store: Store) -> None:
    """A lone surrogate raises in the driver itself, past SQLAlchemy's classes: put aside like what is refused."""
    heartbeat = Heartbeat(local_store, "receive", Counters())

    with Spool(local_store.data_dir, "s1", NO_LIMIT) as spool:
        bad = _arrival(spool, image(), 1)
        broken = replace(bad, header=replace(bad.header, transfer_syntax_uid="\ud800"))
        with Indexer(local_store, heartbeat) as indexer:
            indexer.submit(broken)
    with local_store.read() as connection:
        reason = connection.execute(sa.select(quarantine.c.reason)).scalar_one()

    assert "UnicodeEncodeError" in reason


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_receiver_does_not_outlive_its_indexer(local_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unforeseen error ends the indexer's thread: the role ends too, its folder left for the next start."""

    def fail(*_: object) -> None:
        raise LookupError

    monkeypatch.setattr("gateway.indexer.open_associations", fail)
    heartbeat = Heartbeat(local_store, "receive", Counters())
    indexer = Indexer(local_store, heartbeat)
    monkeypatch.setattr("gateway.association.Indexer", lambda *_: indexer)
    indexer.submit(OpenedAssociation("a1", heartbeat.service_id, "CT1", "HYBRIDMED", NOON))
    receiver = Receiver(local_store, Listening("HYBRIDMED", "127.0.0.1", 0), Limits(drain_s=1), heartbeat)

    with pytest.raises(RuntimeError, match="indexer"):
        receiver.run(threading.Event())

    assert not indexer.is_drained
    assert (local_store.data_dir / "incoming" / heartbeat.service_id).is_dir()


def test_a_quarantined_file_put_back_is_indexed(local_store: Store) -> None:
    """By `dead retry`'s way back: off the list, adopted from `incoming/`, indexed; a call after a kill is harmless."""
    heartbeat = Heartbeat(local_store, "receive", Counters())
    with Spool(local_store.data_dir, "s1", NO_LIMIT) as spool:
        arrival = _arrival(spool, image(), 9)
        broken = replace(arrival, header=replace(arrival.header, transfer_syntax_uid=None))  # type: ignore[arg-type] # on purpose
        with Indexer(local_store, heartbeat) as indexer:
            indexer.submit(broken)
    with local_store.read() as connection:
        listed = list_quarantined(connection)[0]

    put_back(local_store, listed.path)
    with local_store.write() as connection:
        add_quarantined(connection, listed)  # as a kill between rename and row leaves it
    put_back(local_store, listed.path)
    with Indexer(local_store, heartbeat) as indexer:
        for orphan in orphans(local_store.data_dir):
            indexer.submit(orphan)

    with local_store.read() as connection:
        assert count_quarantined(connection) == 0
    assert len(rows(local_store)) == 1
    assert spooled_files(local_store) == []
    with pytest.raises(NotFoundError):
        put_back(local_store, "quarantine/../hybridmed.db")


def test_a_quarantined_file_named_to_dead_retry_goes_back(sqlite_store: Store) -> None:
    """The command moves the file to a folder that any receiver adopts."""
    kept = sqlite_store.data_dir / "quarantine" / "a1_9.dcm"
    kept.parent.mkdir()
    kept.write_bytes(b"bytes")
    with sqlite_store.write() as connection:
        add_quarantined(connection, QuarantinedFile("quarantine/a1_9.dcm", 5, "no pixels", "CT1", NOON))
    environment = {"HYBRIDMED_CONFIG": os.devnull, "HYBRIDMED_DATA_DIR": str(sqlite_store.data_dir)}

    ended = CliRunner().invoke(app, ["dead", "retry", "quarantine/a1_9.dcm"], env=environment)

    assert ended.exit_code == 0, ended.output
    (orphan,) = orphans(sqlite_store.data_dir)
    assert [path.read_bytes() for path in orphan.files()] == [b"bytes"]
    assert not kept.exists()
    orphan.release()


def test_a_quarantined_file_named_to_dead_discard_is_removed(sqlite_store: Store) -> None:
    """The file and its line in the list go; what is not listed is left alone, whatever its name."""
    kept = sqlite_store.data_dir / "quarantine" / "a1_9.dcm"
    kept.parent.mkdir()
    kept.write_bytes(b"cut off")
    with sqlite_store.write() as connection:
        add_quarantined(connection, QuarantinedFile("quarantine/a1_9.dcm", 7, "damaged", "CT1", NOON))
    environment = {"HYBRIDMED_CONFIG": os.devnull, "HYBRIDMED_DATA_DIR": str(sqlite_store.data_dir)}

    ended = CliRunner().invoke(app, ["dead", "discard", "quarantine/a1_9.dcm"], env=environment)
    again = CliRunner().invoke(app, ["dead", "discard", "quarantine/../hybridmed.db"], env=environment)

    assert ended.exit_code == 0, ended.output
    assert not kept.exists()
    with sqlite_store.read() as connection:
        assert count_quarantined(connection) == 0
    assert isinstance(again.exception, NotFoundError)
    assert (sqlite_store.data_dir / "hybridmed.db").exists()


def test_a_database_that_was_set_back_gets_its_instances_again(local_store: Store) -> None:
    """What no row names is handed to the receiver, once; what is being indexed or removed is left alone."""
    heartbeat = Heartbeat(local_store, "receive", Counters())
    study = image().StudyInstanceUID
    with Spool(local_store.data_dir, "s1", NO_LIMIT) as spool:
        with Indexer(local_store, heartbeat) as indexer:
            for number in range(5):
                indexer.submit(_arrival(spool, image(study), number))
        waiting = _arrival(spool, image(study), 9)
        (local_store.data_dir / f"instances/{waiting.spooled.digest[:2]}").mkdir(exist_ok=True)
        target = local_store.data_dir / f"instances/{waiting.spooled.digest[:2]}/{waiting.spooled.digest}.dcm"
        target.hardlink_to(waiting.spooled.path)
    assert list(unindexed(local_store)) == []
    forgotten, going, *known = [row.path for row in rows(local_store)]
    with local_store.write() as connection:
        connection.execute(sa.delete(instance).where(instance.c.path.in_([forgotten, going])))
        connection.execute(sa.insert(removal).values(path=going, created_at=NOON))
    waiting.spooled.path.unlink()
    target.unlink()

    found = list(unindexed(local_store))
    put_back_unindexed(local_store, found)
    assert [str(path.relative_to(local_store.data_dir)) for path in found] == [forgotten]
    with Indexer(local_store, heartbeat) as indexer:
        for orphan in orphans(local_store.data_dir):
            indexer.submit(orphan)

    assert {row.path for row in rows(local_store)} == {forgotten, *known}
    assert list(unindexed(local_store)) == []
    assert spooled_files(local_store) == []
