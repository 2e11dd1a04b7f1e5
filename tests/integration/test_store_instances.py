"""Batches of instances in the database, on SQLite and PostgreSQL."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import BytesIO

import sqlalchemy as sa
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from gateway.errors import DatabaseAwayError
from gateway.header import read_data_set
from gateway.store import Store
from gateway.store.instances import (
    BatchOutcome,
    ClosedAssociation,
    OpenedAssociation,
    ReceivedInstance,
    close_associations,
    index_batch,
    lose_associations,
    open_associations,
)
from gateway.store.studies import list_arriving
from gateway.store.tables import artefact, association, association_content, instance, job, series, study
from tests.receiving import EXPLICIT, encoded, image, rows

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


def _received(data_set: Dataset, association_id: str = "a1") -> ReceivedInstance:
    data = encoded(data_set)
    digest = hashlib.sha256(data).hexdigest()
    return ReceivedInstance(
        header=read_data_set(BytesIO(data), EXPLICIT),
        digest=digest,
        path=f"instances/{digest[:2]}/{digest}.dcm",
        size_bytes=len(data),
        association_id=association_id,
        calling_ae="CT1",
        received_at=NOON,
    )


def _index(store: Store, *received: ReceivedInstance, now: datetime = NOON) -> BatchOutcome:
    with store.write() as connection:
        return index_batch(connection, received, now)


def _studies(store: Store) -> list[sa.Row[tuple[object, ...]]]:
    with store.read() as connection:
        return list(connection.execute(sa.select(study).order_by(study.c.study_instance_uid)))


def _complete(store: Store) -> None:
    with store.write() as connection:
        connection.execute(sa.update(study).values(state="routed", state_reason="r", completed_at=NOON))


def test_a_batch_of_two_studies_makes_their_rows(store: Store) -> None:
    """Instances of two studies and three series in one batch; empty batches are nothing."""
    one, two = generate_uid(), generate_uid()
    batch = [image(one), image(one), image(two), image(two, SeriesInstanceUID=generate_uid(), Modality="SR")]

    outcome = _index(store, *map(_received, batch))
    with store.read() as connection:
        n_series = connection.execute(sa.select(sa.func.count()).select_from(series)).scalar_one()

    assert outcome == BatchOutcome(added=4)
    assert _index(store) == BatchOutcome()
    assert n_series == 3
    assert {row.study_instance_uid: row.revision for row in _studies(store)} == {one: 1, two: 1}


def test_a_late_instance_opens_the_next_revision_once(store: Store) -> None:
    """Two instances for a complete study: it is receiving again, one revision on, and they carry that revision."""
    uid = generate_uid()
    _index(store, _received(image(uid)))
    _complete(store)

    outcome = _index(store, _received(image(uid)), _received(image(uid)), now=NOON + timedelta(minutes=1))
    (row,) = _studies(store)

    assert outcome == BatchOutcome(added=2, reopened=1)
    assert (row.state, row.revision, row.state_reason, row.completed_at) == ("receiving", 2, None, None)
    assert row.last_received_at == NOON + timedelta(minutes=1)
    assert [row.study_revision for row in rows(store)] == [1, 2, 2]


def test_a_repeat_is_a_no_op_for_a_complete_study_and_its_association_counts(store: Store) -> None:
    """The same bytes once more: no row, no revision, yet the new association carries the study beside the first."""
    received = _received(image())
    _index(store, received)
    _complete(store)

    outcome = _index(store, replace(received, association_id="a2"), now=NOON + timedelta(minutes=1))
    (row,) = _studies(store)

    assert outcome == BatchOutcome(repeated=1)
    assert (row.state, row.revision, row.last_received_at) == ("routed", 1, NOON)
    assert [row.association_id for row in rows(store)] == ["a1"]
    assert _carried(store) == {"a1": 1, "a2": 1}


def test_a_repeat_does_not_hide_that_the_first_association_is_open(store: Store) -> None:
    """A sends half a study; B repeats that half and ends: the study waits for A, and for whoever carries it last."""
    half = [_received(image("1.2.3")) for _ in range(3)]
    with store.write() as connection:
        opened = [OpenedAssociation(name, "r1", "CT1", "HYBRIDMED", NOON) for name in ("a", "b")]
        open_associations(connection, opened)
    _index(store, *(replace(one, association_id="a") for one in half))
    _index(store, *(replace(one, association_id="b") for one in half))
    seen = []

    for name in ("b", "a"):
        seen.append(_open_associations(store))
        with store.write() as connection:
            close_associations(connection, [ClosedAssociation(name, "released", NOON)])
    seen.append(_open_associations(store))

    assert seen == [2, 1, 0]


def test_a_batch_that_is_repeated_after_a_fault_counts_once(store: Store) -> None:
    """What an association carried is what it sent, however often the step is done."""
    batch = [_received(image("1.2.3")) for _ in range(2)]

    _index(store, *batch)
    _index(store, *batch)
    _index(store, _received(image("1.2.3")))

    assert _carried(store) == {"a1": 3}


def _carried(store: Store) -> dict[str, int]:
    columns = (association_content.c.association_id, association_content.c.instances)
    with store.read() as connection:
        return {name: count for name, count in connection.execute(sa.select(*columns))}


def _open_associations(store: Store) -> int:
    with store.read() as connection:
        (arriving,) = list_arriving(connection, NOON + timedelta(hours=1))
    return arriving.open_associations


def test_other_bytes_replace_and_the_first_may_come_back(store: Store) -> None:
    """Under one SOP Instance UID exactly one version is current: the latest that came, in one batch or in several."""
    data_set = image()
    first = _received(data_set)
    data_set.PatientName = "Doe^Janet"
    second = _received(data_set)
    _index(store, first)
    _complete(store)

    _index(store, second)
    _complete(store)
    outcome = _index(store, first, second, first)
    (row,) = _studies(store)

    assert outcome == BatchOutcome(changed=3, reopened=1)
    assert [row.is_current for row in rows(store)] == [True, False]
    assert (row.revision, row.patient_name) == (3, "Doe^Jane")


def test_an_instance_that_moves_to_another_study_changes_both(store: Store) -> None:
    """The same SOP Instance UID in another study: current there, and the former study gets a new revision too."""
    data_set = image()
    former = data_set.StudyInstanceUID
    _index(store, _received(data_set))
    _complete(store)
    data_set.StudyInstanceUID = generate_uid()

    _index(store, _received(data_set))

    assert {row.study_instance_uid: row.revision for row in _studies(store)} == {
        former: 2,
        data_set.StudyInstanceUID: 1,
    }
    assert [row.is_current for row in rows(store)] == [False, True]


def test_later_headers_fill_and_correct_but_never_blank(store: Store) -> None:
    """What a later instance says of the patient counts; what it leaves out stays."""
    uid = generate_uid()
    _index(store, _received(image(uid, AccessionNumber="A1")))

    _index(store, _received(image(uid, PatientName="Doe^Corrected")))
    (row,) = _studies(store)

    assert (row.patient_name, row.accession_number) == ("Doe^Corrected", "A1")


def test_our_own_results_sent_back_reopen_nothing(store: Store) -> None:
    """A PACS that routes our SR back to us gets it kept, and no second round begins."""
    uid = generate_uid()
    _index(store, _received(image(uid)))
    _complete(store)
    result = image(uid, Modality="SR", SeriesInstanceUID=generate_uid())
    _remember_result(store, uid, result.SOPInstanceUID)

    outcome = _index(store, _received(result))
    (row,) = _studies(store)

    assert outcome == BatchOutcome(added=1)
    assert (row.state, row.revision) == ("routed", 1)


def _remember_result(store: Store, study_uid: str, sop_instance_uid: str) -> None:
    """Insert a job and an artefact of it with this UID."""
    with store.write() as connection:
        connection.execute(
            sa.insert(job).values(
                id="j1",
                study_instance_uid=study_uid,
                study_revision=1,
                bundle="b",
                revision=1,
                state="done",
                priority="routine",
                destinations=[],
                attempts=1,
                available_at=NOON,
                requested_by="dispatch",
                created_at=NOON,
            )
        )
        connection.execute(
            sa.insert(artefact).values(
                job_id="j1",
                kind="sr-findings",
                ordinal=0,
                variant="",
                media_type="application/dicom",
                study_instance_uid=study_uid,
                sop_instance_uid=sop_instance_uid,
                path="results/j1/sr.dcm",
                digest="0",
                size_bytes=1,
                created_at=NOON,
            )
        )


def test_an_association_opens_closes_once_and_may_be_lost(store: Store) -> None:
    """The first end of an association stays; a dead receiver's open ones are lost."""
    opened = [OpenedAssociation(name, "s1", "CT1", "HYBRIDMED", NOON) for name in ("a1", "a2")]
    with store.write() as connection:
        open_associations(connection, opened)
        open_associations(connection, opened)
        close_associations(connection, [ClosedAssociation("a1", "released", NOON)])
        lost = lose_associations(connection, "s1", NOON)
        found = connection.execute(sa.select(association.c.id, association.c.outcome).order_by(association.c.id)).all()

    assert lost == 1
    assert [tuple(row) for row in found] == [("a1", "released"), ("a2", "lost")]


def test_two_receivers_index_the_same_studies_at_once(store: Store) -> None:
    """Batches of the same studies in opposite order from two threads: every instance once, no deadlock that stays."""
    studies = [generate_uid() for _ in range(5)]
    batches = [[_received(image(uid)) for uid in order for _ in range(4)] for order in (studies, studies[::-1])]
    together = threading.Barrier(2)

    def receive(batch: list[ReceivedInstance]) -> None:
        together.wait()
        for start in range(0, len(batch), 10):
            _index_until_done(store, batch[start : start + 10])

    threads = [threading.Thread(target=receive, args=(batch,)) for batch in batches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with store.read() as connection:
        current = connection.execute(sa.select(sa.func.count()).where(instance.c.is_current)).scalar_one()

    assert current == 40
    assert len(_studies(store)) == 5


def _index_until_done(store: Store, batch: list[ReceivedInstance]) -> None:
    for _ in range(10):
        try:
            _index(store, *batch)
        except DatabaseAwayError:
            continue
        return
    raise AssertionError("not indexed after ten tries")
