"""The indexer's thread: order, batches, and what it does with what the database will not have."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import sqlalchemy as sa
from pydicom.dataset import Dataset

from gateway.header import read_header
from gateway.indexer import Arrival, Indexer
from gateway.services import Counters, Heartbeat
from gateway.spool import DiskLimits, Origin, Spool
from gateway.store import Store
from gateway.store.instances import ClosedAssociation, OpenedAssociation
from gateway.store.tables import association, quarantine
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
    assert (listed.path, listed.calling_ae) == ("quarantine/a1_9.dcm", "CT1")
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
    assert [path.name for path in spooled_files(local_store)] == ["a1_1.dcm"]
    assert rows(local_store) == []
