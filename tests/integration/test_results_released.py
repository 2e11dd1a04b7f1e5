"""Objects that are out before their job is done: what may still become of the job, and that nothing comes twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy.engine import Connection

from gateway.config import Destination
from gateway.errors import ConflictError
from gateway.job import Claim, State
from gateway.report.fhir_input import FhirInput
from gateway.store import Store, deliveries, jobs
from gateway.store.results import (
    FhirVersion,
    NewArtefact,
    commit_results,
    list_artefacts,
    predecessor,
    release_objects,
)
from gateway.store.studies import lock_study
from gateway.store.tables import fhir_resource
from gateway.store.tables import job as job_table
from gateway.store.workitem_query import workitem_uid
from gateway.workitem.refusal import Refusal, WorkitemError
from inference.errors import DeviceError
from inference.findings import Findings, Outcome
from tests.stores import NOON, add_study
from tests.studies import RealData
from tests.thresholding import Thresholding
from tests.upsteps import make_worklist
from tests.working import RENDERERS, add_job, eventually, job_of, make_worker, render_report, running, take_in

STUDY = "1.2.3"
PACS = Destination(name="PACS", address="PACS@127.0.0.1:104")
EHR = Destination(name="EHR", address="fhir+https://127.0.0.1/fhir")


def _artefact(kind: str) -> NewArtefact:
    return NewArtefact(kind, 0, "", "application/dicom", STUDY, "1.2.3.1", "1.2.4", "1.2.5", f"{kind}.dcm", "0" * 64, 1)


def _claimed(store: Store) -> Claim:
    with store.write() as connection:
        if not lock_study(connection, STUDY):
            add_study(connection, STUDY)
    claim = _claim(store, add_job(store, STUDY))
    assert claim is not None
    return claim


def _claim(store: Store, job_id: str) -> Claim | None:
    with store.write() as connection:
        return jobs.claim(connection, job_id, "w1", datetime.now(UTC), 60)


def _release(store: Store, claim: Claim, kind: str = "sr-findings") -> bool:
    with store.write() as connection:
        return release_objects(
            connection,
            claim,
            NOON,
            algorithm={"name": "a"},
            summary={"text": kind},
            artefacts=[_artefact(kind)],
            deliveries=["PACS"],
        )


def _commit(store: Store, claim: Claim) -> bool:
    with store.write() as connection:
        return commit_results(
            connection,
            claim,
            NOON,
            algorithm={"name": "a"},
            summary={"text": "t"},
            reason=None,
            artefacts=[_artefact("sr-findings"), _artefact("picture-overlay")],
            resources=[],
            deliveries=["PACS", "EHR"],
        )


def _expire(store: Store, max_attempts: int = 5) -> None:
    now = datetime.now(UTC)
    with store.write() as connection:
        connection.execute(job_table.update().values(lease_expires_at=now - timedelta(seconds=1)))
        assert jobs.requeue_expired(connection, now, max_attempts) == 1


def _sent_to(store: Store, job_id: str) -> list[str]:
    with store.read() as connection:
        rows = deliveries.list_deliveries(connection, deliveries.DeliveryFilter(job_id=job_id))
    return sorted(row.destination for row in rows)


def _kinds(store: Store, job_id: str) -> list[str]:
    with store.read() as connection:
        return [each.kind for each in list_artefacts(connection, job_id)]


def test_the_rest_joins_what_is_out(store: Store) -> None:
    """A second release writes nothing; the commit adds the other files and the other delivery."""
    claim = _claimed(store)

    answers = [_release(store, claim), _release(store, claim, "sr-other")]
    state, out, first = job_of(store, claim.job_id).state, _kinds(store, claim.job_id), _sent_to(store, claim.job_id)

    assert answers == [True, True]
    assert (state, out, first) == (State.RUNNING, ["sr-findings"], ["PACS"])
    assert _commit(store, claim)
    assert _kinds(store, claim.job_id) == ["sr-findings", "picture-overlay"]
    assert _sent_to(store, claim.job_id) == ["EHR", "PACS"]


def test_nothing_goes_out_when_the_lease_is_lost(store: Store) -> None:
    """A worker whose job was cancelled brings out no row."""
    claim = _claimed(store)
    with store.write() as connection:
        jobs.cancel(connection, claim.job_id, NOON)

    assert not _release(store, claim)

    assert _kinds(store, claim.job_id) == []
    assert _sent_to(store, claim.job_id) == []


def test_what_is_out_cannot_be_cancelled(store: Store) -> None:
    """Neither while the job runs nor while it waits for its next try; once it is given up, it can."""
    claim = _claimed(store)
    _release(store, claim)

    with store.write() as connection, pytest.raises(ConflictError, match="its results are out"):
        jobs.cancel(connection, claim.job_id, NOON)
    _expire(store)
    with store.write() as connection, pytest.raises(ConflictError, match="its results are out"):
        jobs.cancel(connection, claim.job_id, NOON)
    assert _claim(store, claim.job_id) is not None
    _expire(store, max_attempts=2)
    with store.write() as connection:
        jobs.cancel(connection, claim.job_id, NOON)

    assert job_of(store, claim.job_id).state is State.CANCELLED


def test_a_workitem_whose_results_are_out_may_no_longer_be_updated(store: Store) -> None:
    """A request to cancel it is refused with 0xC300 (PS3.4 CC.2.2), and it stays in progress."""
    claim = _claimed(store)
    _release(store, claim)

    with pytest.raises(WorkitemError, match="its results are out") as refused:
        make_worklist(store).workitems.request_cancel(workitem_uid(claim.job_id), {}, "NURSE")

    assert refused.value.refusal is Refusal.MAY_NOT_BE_UPDATED
    assert job_of(store, claim.job_id).state is State.RUNNING


def test_a_newer_job_waits_for_what_is_out(store: Store) -> None:
    """Neither the newer job nor the sweeper cancels the older one; the newer one is claimed when it is done."""
    older = _claimed(store)
    _release(store, older)
    _expire(store)
    newer = add_job(store, STUDY)

    refused = _claim(store, newer)
    again = _claim(store, older.job_id)

    assert refused is None
    assert again is not None
    _expire(store)  # though it is replaced by now
    again = _claim(store, older.job_id)
    assert again is not None and _commit(store, again)
    claim = _claim(store, newer)
    assert claim is not None
    with store.read() as connection:
        found = predecessor(connection, claim)
    assert found is not None and (found.job_id, found.is_reported) == (older.job_id, True)


def test_what_a_dead_job_brought_out_is_replaced_by_the_next(store: Store) -> None:
    """The next revision names its objects as predecessors; FHIR, which does not know it, tells no amendment."""
    dead = _claimed(store)
    _release(store, dead)
    _expire(store, max_attempts=1)
    nothing_out = _claimed(store)
    with store.write() as connection:
        jobs.kill(connection, nothing_out, NOON, "broken")

    claim = _claimed(store)

    with store.read() as connection:
        found = predecessor(connection, claim)
    assert found is not None
    assert (found.job_id, found.is_reported) == (dead.job_id, False)


def test_a_next_try_ends_what_the_first_brought_out(store: Store, real_data: RealData) -> None:
    """Drawing fails once, after the objects are out: the next try makes no others, and reports what they say."""
    job_id = add_job(store, take_in(store, real_data.cxr[0]), to=["PACS", "EHR"])
    seen: list[tuple[State, Sequence[NewArtefact], Sequence[str]]] = []
    reported: list[Sequence[Outcome]] = []

    def draw(outcome: Findings, sources: Sequence[Path]) -> Mapping[str, bytes]:
        with store.read() as connection:
            out = list_artefacts(connection, job_id)
        seen.append((job_of(store, job_id).state, out, _sent_to(store, job_id)))
        if len(seen) == 1:
            raise DeviceError("for now")
        return RENDERERS.pictures(outcome, sources)

    def render(connection: Connection, finished: FhirInput, /) -> Sequence[FhirVersion]:
        reported.append(finished.outcomes)
        return render_report(connection, finished)

    renderers = replace(RENDERERS, pictures=draw, fhir=render)
    worker, _ = make_worker(store, lambda _name: Thresholding(), destinations=[PACS, EHR], renderers=renderers)
    with running(worker):
        eventually(lambda: job_of(store, job_id).state is State.DONE, "the second try is done")

    first, second = seen
    with store.read() as connection:
        artefacts = list_artefacts(connection, job_id)
        versions = [row.version for row in connection.execute(fhir_resource.select())]
    assert first[0] is State.RUNNING
    assert [each.kind for each in first[1]] == ["sr-findings", "seg", "sr-measurements"]
    assert first[2] == ["PACS"]
    assert second == first
    assert artefacts[:3] == first[1]
    assert [each.kind for each in artefacts[3:]] == ["picture-overlay"]
    assert _sent_to(store, job_id) == ["EHR", "PACS"]
    assert versions == [1]
    assert len(reported) == 1
    assert job_of(store, job_id).attempts == 2
