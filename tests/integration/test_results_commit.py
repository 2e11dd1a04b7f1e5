"""The commit of results: all or nothing, versions that follow each other, resources that studies share."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import orjson
import pytest
import sqlalchemy as sa

from gateway.job import Claim, State
from gateway.store import Store, jobs
from gateway.store.results import (
    FhirVersion,
    IndexEntry,
    NewArtefact,
    commit_results,
    list_artefacts,
    predecessor,
    write_resources,
)
from gateway.store.tables import delivery, fhir_index, fhir_resource
from tests.stores import NOON, add_study
from tests.working import add_job, job_of

LATER = NOON + timedelta(hours=1, microseconds=123456)


def _artefact(kind: str) -> NewArtefact:
    return NewArtefact(
        kind, 0, "", "application/dicom", "1.2.3", "1.2.3.1", "1.2.4", "1.2.5", f"{kind}.dcm", "0" * 64, 1
    )


def _patient(body: dict[str, object], *index: IndexEntry) -> FhirVersion:
    content = orjson.dumps({"resourceType": "Patient", "id": "p1", **body})
    return FhirVersion("Patient", "p1", None, content, index)


def _claimed(store: Store, study_uid: str = "1.2.3") -> Claim:
    job_id = add_job(store, study_uid)
    with store.write() as connection:
        claim = jobs.claim(connection, job_id, "w1", datetime.now(UTC), 60)
    assert claim is not None
    return claim


def _commit(store: Store, claim: Claim, resources: Sequence[FhirVersion] = (), to: Sequence[str] = ()) -> bool:
    with store.write() as connection:
        return commit_results(
            connection,
            claim,
            LATER,
            algorithm={"name": "a"},
            summary={"text": "t"},
            reason=None,
            artefacts=[_artefact("seg")],
            resources=resources,
            deliveries=to,
        )


def _write(store: Store, *resources: FhirVersion) -> int:
    with store.write() as connection:
        return write_resources(connection, resources, LATER, job_id=None)


def _versions(store: Store) -> list[tuple[int, bool, dict[str, object]]]:
    with store.read() as connection:
        rows = connection.execute(sa.select(fhir_resource).order_by(fhir_resource.c.version))
        return [(row.version, row.is_current, orjson.loads(row.body)) for row in rows]


@pytest.fixture(autouse=True)
def _study(store: Store) -> None:
    with store.write() as connection:
        add_study(connection, "1.2.3")


def test_a_commit_writes_everything_that_follows(store: Store) -> None:
    """Job, artefact, resource with its index, and a delivery for each destination stand after one call."""
    claim = _claimed(store)

    is_committed = _commit(store, claim, [_patient({}, IndexEntry("identifier", "urn:x", "1"))], ["A", "B", "A"])

    with store.read() as connection:
        entries = connection.execute(sa.select(fhir_index.c.type, fhir_index.c.parameter, fhir_index.c.value)).all()
        sent = connection.scalars(sa.select(delivery.c.destination).order_by(delivery.c.id)).all()
        assert list_artefacts(connection, claim.job_id) == [_artefact("seg")]
    assert is_committed
    assert (job_of(store, claim.job_id).state, job_of(store, claim.job_id).summary) == (State.DONE, {"text": "t"})
    assert [tuple(entry) for entry in entries] == [("Patient", "identifier", "1")]
    assert sent == ["A", "B"]


def test_nothing_is_written_when_the_lease_is_lost(store: Store) -> None:
    """The job was cancelled meanwhile: neither artefact nor resource nor delivery appears."""
    claim = _claimed(store)
    with store.write() as connection:
        jobs.cancel(connection, claim.job_id, NOON)

    is_committed = _commit(store, claim, [_patient({})], ["A"])

    with store.read() as connection:
        counts = [connection.scalar(sa.select(sa.func.count()).select_from(t)) for t in (fhir_resource, delivery)]
        assert list_artefacts(connection, claim.job_id) == []
    assert not is_committed
    assert counts == [0, 0]


def test_a_failure_inside_the_commit_leaves_the_job_running(store: Store) -> None:
    """A resource that is no JSON takes the job, its artefacts and the other resources back."""
    claim = _claimed(store)

    with pytest.raises(ValueError, match="Expecting"):
        _commit(store, claim, [_patient({}), FhirVersion("Patient", "p2", None, b"{")])

    with store.read() as connection:
        assert list_artefacts(connection, claim.job_id) == []
    assert _versions(store) == []
    assert job_of(store, claim.job_id).state is State.RUNNING


def test_a_changed_resource_becomes_the_next_version(store: Store) -> None:
    """The earlier version stays; version and time in the body are those of the row."""
    assert _write(store, _patient({"gender": "male"})) == 1
    assert _write(store, _patient({"gender": "female"})) == 1

    (first, was_current, _), (second, is_current, body) = _versions(store)
    assert (first, was_current, second, is_current) == (1, False, 2, True)
    assert body["meta"] == {"versionId": "2", "lastUpdated": "2026-03-02T13:00:00.123Z"}
    assert list(body) == ["resourceType", "id", "meta", "gender"]
    with store.read() as connection:
        assert connection.scalar(sa.select(sa.func.max(fhir_resource.c.last_updated))) == LATER.replace(
            microsecond=123000
        )


def test_an_equal_resource_is_not_written_again(store: Store) -> None:
    """Neither another order of its members nor other version numbers make a difference; another profile does."""
    _write(store, _patient({"gender": "male", "active": True, "meta": {"profile": ["a"]}}))

    same = _write(store, _patient({"active": True, "gender": "male", "meta": {"versionId": "9", "profile": ["a"]}}))
    other = _write(store, _patient({"active": True, "gender": "male", "meta": {"profile": ["b"]}}))

    assert (same, other) == (0, 1)


def test_decimals_keep_their_digits(store: Store) -> None:
    """0.90 says more than 0.9 (FHIR R4 2.24.0.1), and large numbers lose nothing."""
    body = b'{"resourceType":"Observation","id":"o1","valueQuantity":{"value":0.90},"x":[1.230000000000000000001]}'

    _write(store, FhirVersion("Observation", "o1", None, body))

    with store.read() as connection:
        stored = connection.scalar(sa.select(fhir_resource.c.body))
    assert b'"value":0.90}' in stored
    assert b"[1.230000000000000000001]" in stored


def test_writers_of_a_shared_resource_wait_for_each_other(store: Store) -> None:
    """Twelve commits at once that all write one Patient give twelve versions, one of them current."""
    failures: list[Exception] = []

    def write(number: int) -> None:
        try:
            _write(store, _patient({"gender": str(number)}), FhirVersion("Device", f"d{number % 3}", None, b'{"a":1}'))
        except Exception as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=write, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    versions = [row for row in _versions(store) if row[2].get("resourceType") == "Patient"]
    assert failures == []
    assert [version for version, _, _ in versions] == list(range(1, 13))
    assert [is_current for _, is_current, _ in versions] == [False] * 11 + [True]
    assert len(_versions(store)) == 12 + 3


def test_the_predecessor_is_the_latest_done_revision(store: Store) -> None:
    """A cancelled revision between is passed over."""
    first = _claimed(store)
    _commit(store, first)
    with store.write() as connection:
        jobs.cancel(connection, add_job_in(connection), NOON)
    third = _claimed(store)

    with store.read() as connection:
        found = predecessor(connection, third)

    assert found is not None
    assert (found.job_id, found.revision, third.revision) == (first.job_id, 1, 3)


def add_job_in(connection: sa.Connection) -> str:
    """Make a job in an open transaction."""
    return jobs.create_job(
        connection,
        study_instance_uid="1.2.3",
        study_revision=1,
        bundle="thresholding",
        priority="routine",
        destinations=[],
        requested_by="reprocess",
        now=NOON,
    )
