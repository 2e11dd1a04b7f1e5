"""The worker on real X-rays, over the embedded queue, on SQLite and PostgreSQL."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pydicom
import pytest
from sqlalchemy.engine import Connection

from gateway.broker import JobMessage
from gateway.config import Destination
from gateway.errors import DatabaseAwayError
from gateway.job import State
from gateway.report.fhir_input import FhirInput
from gateway.store import Store, deliveries, jobs
from gateway.store.results import FhirVersion, NewArtefact, list_artefacts
from gateway.store.tables import fhir_resource
from gateway.worker import FindModel, Limits
from gateway.worker.execution import Execution
from inference.errors import DeviceError, NotEvaluableError
from tests.studies import RealData
from tests.thresholding import Thresholding
from tests.working import LIMITS, RENDERERS, add_job, eventually, job_of, make_worker, render_report, running, take_in

LONG_S = 120.0
"""After which a worker hangs: no measure of what is fast enough."""
PACS = Destination(name="PACS", address="PACS@127.0.0.1:104")
LABELMAPS = Destination(name="MAPS", address="MAPS@127.0.0.1:104", seg_encoding="LABELMAP")


def _only(model: Thresholding) -> FindModel:
    return lambda name: model if name == "thresholding" else None


def _raising(error: Exception) -> Callable[[], None]:
    def during() -> None:
        raise error

    return during


@pytest.fixture
def study_uid(store: Store, real_data: RealData) -> str:
    """Give a study of one real X-ray."""
    return take_in(store, real_data.cxr[0])


def _work_until(store: Store, model: Thresholding, job_id: str, *states: State, **parts: object) -> dict[str, float]:
    worker, heartbeat = make_worker(store, _only(model), **parts)  # type: ignore[arg-type] # passed on by name
    with running(worker):
        eventually(lambda: job_of(store, job_id).state in states, f"{job_id} in {states}", LONG_S)
    return dict(heartbeat.counters.snapshot())


def test_a_job_ends_with_files_rows_resources_and_deliveries(store: Store, study_uid: str) -> None:
    """Everything that follows from a finished job stands in the database, and its files lie on disk."""
    job_id = add_job(store, study_uid, to=["PACS"])

    counters = _work_until(store, Thresholding(), job_id, State.DONE, destinations=[PACS])

    job = job_of(store, job_id)
    with store.read() as connection:
        artefacts = list_artefacts(connection, job_id)
        sent = deliveries.list_deliveries(connection)
        resources = connection.execute(fhir_resource.select()).all()
    assert {one.kind for one in artefacts} == {"sr-findings", "seg", "sr-measurements", "picture-overlay"}
    assert all((store.data_dir / one.path).stat().st_size == one.size_bytes for one in artefacts)
    assert job.algorithm is not None
    assert job.algorithm["name"] == "thresholding"
    assert job.summary["outcomes"][0]["findings"][0]["answer"] in job.summary["text"]
    assert [(one.destination, one.state) for one in sent] == [("PACS", "waiting")]
    assert [(one.type, one.version, one.is_current) for one in resources] == [("DiagnosticReport", 1, True)]
    assert counters['hybridmed_jobs_done_total{bundle="thresholding"}'] == 1


def test_the_measurement_is_that_of_the_pixels(store: Store, study_uid: str, real_data: RealData) -> None:
    """What lists show is what the model measured in this very image."""
    job_id = add_job(store, study_uid)
    pixels = pydicom.dcmread(real_data.cxr[0]).pixel_array.astype("float32")

    _work_until(store, Thresholding(), job_id, State.DONE)

    segment = job_of(store, job_id).summary["outcomes"][0]["segments"][0]
    assert segment["measurements"][0]["value"] == pytest.approx(100 * (pixels < pixels.mean()).mean())


def test_a_destination_gets_the_variant_that_it_wants(store: Store, study_uid: str) -> None:
    """Only the objects that differ are stored a second time: the label map and the report that refers to it."""
    job_id = add_job(store, study_uid, to=["PACS", "MAPS"])

    _work_until(store, Thresholding(), job_id, State.DONE, destinations=[PACS, LABELMAPS])

    with store.read() as connection:
        artefacts = list_artefacts(connection, job_id)
    assert {one.kind for one in artefacts if one.variant == "seg=LABELMAP"} == {"seg", "sr-measurements"}


def test_a_study_without_a_series_for_the_bundle_is_not_evaluable(store: Store, real_data: RealData) -> None:
    """It is a result, with a report for the PACS, and not a failure."""
    study_uid = take_in(store, real_data.studies()["mr"][0])
    job_id = add_job(store, study_uid, to=["PACS"])

    _work_until(store, Thresholding(), job_id, State.DONE, destinations=[PACS])

    with store.read() as connection:
        kinds = [one.kind for one in list_artefacts(connection, job_id)]
    said = "not evaluable: no series that thresholding is meant for; the study holds MR"
    assert job_of(store, job_id).reason == said
    assert kinds == ["sr-findings"]


def test_what_the_model_withholds_is_a_result(store: Store, study_uid: str) -> None:
    """An error that says 'not evaluable' ends as a report with its reason."""
    job_id = add_job(store, study_uid)
    model = Thresholding(_raising(NotEvaluableError("projection", "lateral view, frontal expected")))

    _work_until(store, model, job_id, State.DONE)

    assert job_of(store, job_id).reason == "not evaluable: lateral view, frontal expected"


def test_a_bundle_that_is_not_installed_is_a_dead_job(store: Store, study_uid: str) -> None:
    """The operator reads which bundle is missing."""
    job_id = add_job(store, study_uid, bundle="absent")

    _work_until(store, Thresholding(), job_id, State.DEAD)

    assert job_of(store, job_id).reason == "NotFoundError: bundle 'absent' is not installed on this worker"


@pytest.mark.parametrize("error", [DeviceError("out of memory"), OSError(errno.EIO, os.strerror(errno.EIO))])
def test_an_error_that_may_pass_is_tried_again_and_then_dead(store: Store, study_uid: str, error: Exception) -> None:
    """The job is given up after the last try, with the reason."""
    job_id = add_job(store, study_uid)

    counters = _work_until(store, Thresholding(_raising(error)), job_id, State.DEAD)

    job = job_of(store, job_id)
    assert job.attempts == LIMITS.max_attempts
    assert "try 3 of 3" in (job.reason or "")
    assert counters['hybridmed_jobs_retried_total{bundle="thresholding"}'] == LIMITS.max_attempts - 1


def test_an_error_of_a_library_is_dead_at_once_and_tells_no_value(store: Store, study_uid: str) -> None:
    """The reason names class and place; the message, which may quote a name, is kept out."""
    job_id = add_job(store, study_uid)

    _work_until(store, Thresholding(_raising(ValueError("bad value 'Doe^Jane'"))), job_id, State.DEAD)

    job = job_of(store, job_id)
    assert job.attempts == 1
    assert (job.reason or "").startswith("ValueError in gateway/worker/")
    assert "Doe" not in (job.reason or "")


def test_the_next_job_is_done_after_one_that_failed(store: Store, study_uid: str, real_data: RealData) -> None:
    """A study that breaks the model holds up no other."""
    failing = [True]

    def during() -> None:
        if failing.pop() if failing else False:
            raise KeyError("x")

    first = add_job(store, study_uid)
    second = add_job(store, take_in(store, real_data.cxr[1]))

    _work_until(store, Thresholding(during), second, State.DONE)

    assert job_of(store, first).state is State.DEAD


def test_a_second_message_for_a_done_job_changes_nothing(store: Store, study_uid: str) -> None:
    """The claim fails, the message is acknowledged, and one result stands."""
    job_id = add_job(store, study_uid)
    broker = _Repeating(job_id)

    worker, heartbeat = make_worker(store, _only(Thresholding()), broker=broker)
    with running(worker):
        eventually(lambda: broker.acknowledged == _Repeating.TIMES, "all messages acknowledged")

    with store.read() as connection:
        resources = connection.execute(fhir_resource.select()).all()
    assert job_of(store, job_id).attempts == 1
    assert len(resources) == 1
    assert heartbeat.counters.snapshot()["hybridmed_messages_without_work_total"] == _Repeating.TIMES - 1


def test_results_are_dropped_when_the_lease_is_lost(store: Store, study_uid: str) -> None:
    """A job cancelled while the model runs leaves no artefact row and no resource."""
    job_id = add_job(store, study_uid)

    def cancel() -> None:
        with store.write() as connection:
            jobs.cancel(connection, job_id, datetime.now(UTC))

    worker, heartbeat = make_worker(store, _only(Thresholding(cancel)))
    with running(worker):
        eventually(lambda: heartbeat.counters.snapshot().get("hybridmed_leases_lost_total"), "the loss is counted")

    with store.read() as connection:
        assert list_artefacts(connection, job_id) == []
        assert connection.execute(fhir_resource.select()).all() == []
    assert job_of(store, job_id).state is State.CANCELLED


def test_a_lease_is_renewed_while_the_model_runs(store: Store, study_uid: str) -> None:
    """Work that takes several leases is not taken away."""
    job_id = add_job(store, study_uid)
    limits = Limits(4.0, 3, LIMITS.retry_first, LIMITS.retry_limit)
    taken: list[int] = []

    def slow() -> None:
        for _ in range(20):
            time.sleep(0.5)
            with store.write() as connection:
                taken.append(jobs.requeue_expired(connection, datetime.now(UTC), 3))

    _work_until(store, Thresholding(slow), job_id, State.DONE, limits=limits)

    assert sum(taken) == 0
    assert job_of(store, job_id).attempts == 1


def test_the_next_job_is_prepared_while_the_first_is_on_the_device(
    store: Store, study_uid: str, real_data: RealData
) -> None:
    """On stop the first is finished; the prepared one is queued again, its try not counted."""
    on_device, go_on = threading.Event(), threading.Event()

    def during() -> None:
        on_device.set()
        assert go_on.wait(LONG_S)

    model = Thresholding(during)
    first = add_job(store, study_uid)
    second, third = (add_job(store, take_in(store, file)) for file in real_data.cxr[1:3])
    worker, _ = make_worker(store, _only(model))
    with running(worker) as stop:
        assert model.prepared.acquire(timeout=LONG_S)
        assert on_device.wait(LONG_S)
        assert model.prepared.acquire(timeout=LONG_S)
        assert not model.prepared.acquire(timeout=0.5)
        states = [job_of(store, each).state for each in (first, second, third)]
        stop.set()
        go_on.set()

    assert states == [State.RUNNING, State.RUNNING, State.QUEUED]
    assert job_of(store, first).state is State.DONE
    assert (job_of(store, second).state, job_of(store, second).attempts) == (State.QUEUED, 0)


def test_a_reprocess_names_what_it_replaces(store: Store, study_uid: str) -> None:
    """The SR of revision 2 has that of revision 1 as its predecessor, and the report is amended."""
    first = add_job(store, study_uid)
    _work_until(store, Thresholding(), first, State.DONE)
    second = add_job(store, study_uid)

    _work_until(store, Thresholding(), second, State.DONE)

    with store.read() as connection:
        old, new = (_one(list_artefacts(connection, each), "sr-findings") for each in (first, second))
        versions = [(row.version, row.is_current) for row in connection.execute(fhir_resource.select())]
    report = pydicom.dcmread(store.data_dir / new.path)
    predecessor = report.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence
    assert [item.ReferencedSOPInstanceUID for item in predecessor] == [old.sop_instance_uid]
    assert new.sop_instance_uid != old.sop_instance_uid
    assert versions == [(1, False), (2, True)]


def test_results_wait_for_a_database_that_is_away(store: Store, study_uid: str) -> None:
    """Two commits fail for want of the database; the third writes what the model said the first time."""
    job_id = add_job(store, study_uid)
    runs: list[int] = []
    absences = [1, 2]

    def render(connection: Connection, finished: FhirInput, /) -> Sequence[FhirVersion]:
        if absences:
            raise DatabaseAwayError(f"away {absences.pop()}")
        return render_report(connection, finished)

    model = Thresholding(lambda: runs.append(1))
    _work_until(store, model, job_id, State.DONE, renderers=replace(RENDERERS, fhir=render))

    assert runs == [1]
    assert job_of(store, job_id).attempts == 1


def test_a_commit_that_went_through_unheard_is_no_lost_lease(store: Store, study_uid: str) -> None:
    """The connection broke after the commit: the second call says True and writes nothing."""
    job_id = add_job(store, study_uid, to=["PACS"])
    with store.write() as connection:
        claim = jobs.claim(connection, job_id, "w1", datetime.now(UTC), 60)
    assert claim is not None
    execution = Execution(store, _only(Thresholding()), RENDERERS, [PACS], lambda: datetime.now(UTC))
    prepared = execution.prepare(claim)
    made = execution.complete(prepared, execution.publish(prepared, execution.infer(prepared)))

    answers = [execution.commit(prepared, made), execution.commit(prepared, made)]
    other = execution.complete(prepared, execution.publish(prepared, made.outcomes))

    assert answers == [True, True]
    assert not execution.commit(prepared, other)
    with store.read() as connection:
        assert len(list_artefacts(connection, job_id)) == len(made.artefacts)


def test_files_that_no_row_names_are_removed_at_start(store: Store, study_uid: str) -> None:
    """Old left-overs of an ended job go; its results, fresh files and those of a waiting job stay."""
    job_id = add_job(store, study_uid)
    _work_until(store, Thresholding(), job_id, State.DONE)
    waiting = add_job(store, study_uid, bundle="absent")
    with store.read() as connection:
        named = [store.data_dir / one.path for one in list_artefacts(connection, job_id)]
    folder = store.data_dir / "results"
    old, fresh = folder / job_id / "seg-0-left.dcm", folder / job_id / "seg-0-fresh.dcm"
    of_waiting = folder / waiting / "seg-0-left.dcm"
    of_waiting.parent.mkdir()
    for path in (old, fresh, of_waiting):
        path.write_bytes(b"left")
    for path in (old, of_waiting, *named):
        os.utime(path, (0, 0))

    worker, _ = make_worker(store, _only(Thresholding()), broker=_Repeating(job_id))
    with running(worker):
        eventually(lambda: not old.exists(), "the left-over is removed")

    assert all(path.exists() for path in (fresh, of_waiting, *named))


def _one(artefacts: Sequence[NewArtefact], kind: str) -> NewArtefact:
    return next(one for one in artefacts if one.kind == kind)


class _Repeating:
    """A queue that delivers the same message several times, as brokers may."""

    TIMES = 3

    def __init__(self, job_id: str) -> None:
        self._left = self.TIMES
        self.acknowledged = 0
        self.message = JobMessage(job_id)

    def receive(self, timeout_s: float) -> _Repeating | None:
        if self._left == 0:
            time.sleep(timeout_s)
            return None
        self._left -= 1
        return self

    def ack(self) -> None:
        self.acknowledged += 1

    def requeue(self) -> None:
        raise AssertionError("nothing is given back")

    def publish(self, message: object) -> None:
        raise AssertionError("nothing is published")

    def waiting(self) -> int:
        return self._left

    def close(self) -> None:
        self._left = 0
