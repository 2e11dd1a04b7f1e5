"""Studies that still arrive are read and prepared; results are the same with and without."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from gateway.job import Claim, State
from gateway.store import Store, jobs
from gateway.store.tables import study
from gateway.worker import Ahead
from gateway.worker.execution import Execution
from inference.errors import BundleError
from inference.findings import Outcome
from inference.preread import Preread
from tests.stores import add_instance
from tests.studies import RealData
from tests.thresholding import Thresholding
from tests.working import RENDERERS, add_job, eventually, job_of, make_worker, running, take_in

ROOM = 1 << 30
LATER = datetime.now(UTC) + timedelta(hours=1)


class Counting(Thresholding):
    """Counts how often a study is prepared and evaluated; fails where the test wants it."""

    def __init__(self) -> None:
        super().__init__()
        self.preparations = self.evaluations = 0
        self.fault: Exception | None = None
        self.fault_on_device: Exception | None = None
        self.on_device: Callable[[], object] = lambda: None
        self.preparing = threading.Event()
        self.may_end = threading.Event()
        self.may_end.set()

    def prepare(self, series: Sequence[Sequence[Path]], /) -> Callable[[], Sequence[Outcome]]:
        """Read as the model does."""
        self.preparations += 1
        self.preparing.set()
        self.may_end.wait(30)
        if self.fault is not None:
            raise self.fault
        infer = super().prepare(series)

        def counted() -> Sequence[Outcome]:
            self.evaluations += 1
            self.on_device()
            if self.fault_on_device is not None:
                raise self.fault_on_device
            return infer()

        return counted


@pytest.fixture
def study_uid(store: Store, real_data: RealData) -> str:
    """Give a study of one real X-ray that is still arriving."""
    uid = take_in(store, real_data.cxr[0])
    with store.write() as connection:
        connection.execute(sa.update(study).values(state="receiving"))
    return uid


def make(
    store: Store,
    model: Thresholding,
    *,
    preread: Preread | None = None,
    limit_bytes: int = ROOM,
    hung_s: float = 60.0,
) -> Ahead:
    """Make what works ahead; every study goes to the one model, an hour after it came."""
    ahead = Ahead(
        store,
        lambda _study, _series: ["thresholding"],
        lambda _name: model,
        preread or Preread(ROOM),
        limit_bytes,
        now=lambda: LATER,
        hung_s=hung_s,
    )
    ahead.go()
    return ahead


def hand_over(store: Store, study_uid: str) -> str:
    """Make a job of the study, which has arrived then, as the dispatcher does; return its id."""
    with store.write() as connection:
        connection.execute(sa.update(study).values(state="processing"))
    return add_job(store, study_uid)


def claim(store: Store, study_uid: str) -> Claim:
    """Make a job of the study and claim it."""
    job_id = hand_over(store, study_uid)
    with store.write() as connection:
        claimed = jobs.claim(connection, job_id, "worker", datetime.now(UTC), 60)
    assert claimed is not None
    return claimed


def execution(store: Store, model: Thresholding, ahead: Ahead | None) -> Execution:
    """Make the steps of a job, at one time of day."""
    return Execution(store, lambda _name: model, RENDERERS, (), lambda: LATER, ahead)


def test_a_bundle_that_does_not_open_holds_up_no_other(sqlite_store: Store, real_data: RealData) -> None:
    """Where a study is for two, the good one's part is prepared."""
    model = Counting()
    take_in(sqlite_store, real_data.cxr[0])
    with sqlite_store.write() as connection:
        connection.execute(sa.update(study).values(state="receiving"))

    def find(name: str) -> Thresholding:
        if name == "bad":
            raise BundleError("bundle.toml: network.backbone: 'resnet19' is none of resnet10")
        return model

    ahead = Ahead(sqlite_store, lambda _study, _series: ["bad", "good"], find, Preread(ROOM), ROOM, lambda: LATER)
    ahead.go()
    ahead.work()

    assert model.preparations == 1


def test_results_are_the_same_with_and_without(store: Store, study_uid: str) -> None:
    """The same job, done both ways, writes the same files: their names hold their digests."""
    model = Counting()
    ahead = make(store, model)
    ahead.work()
    claimed = claim(store, study_uid)

    made = []
    for steps in (execution(store, model, ahead), execution(store, model, None)):
        prepared = steps.prepare(claimed)
        made.append(steps.complete(prepared, steps.publish(prepared, steps.infer(prepared))).artefacts)

    assert model.preparations == 2  # ahead, and without
    assert made[0] == made[1]
    assert {"sr-findings", "seg", "sr-measurements"} <= {one.kind for one in made[0]}


def test_what_is_arriving_alone_is_evaluated_ahead(store: Store, study_uid: str) -> None:
    """The job has its answer; one that comes again asks the model itself."""
    model = Counting()
    ahead = make(store, model)
    ahead.work()
    ahead.work()
    steps, claimed = execution(store, model, ahead), claim(store, study_uid)
    assert model.evaluations == 1

    first = steps.infer(steps.prepare(claimed))
    assert model.evaluations == 1
    again = steps.infer(steps.prepare(claimed))

    assert model.evaluations == 2
    assert [type(each) for each in first] == [type(each) for each in again]


def test_nothing_is_evaluated_ahead_while_another_study_arrives(
    store: Store, study_uid: str, real_data: RealData
) -> None:
    """Its job might come at any moment, and would have to wait."""
    take_in(store, real_data.cxr[1])
    with store.write() as connection:
        connection.execute(sa.update(study).values(state="receiving"))
    model = Counting()

    make(store, model).work()

    assert (model.preparations, model.evaluations) == (2, 0)


def test_nothing_is_evaluated_ahead_while_the_device_is_in_use(store: Store, study_uid: str) -> None:
    """A job that runs there has it alone."""
    model = Counting()
    ahead = make(store, model)

    with ahead.device:
        ahead.work()

    assert (model.preparations, model.evaluations) == (1, 0)


def test_a_fault_of_the_device_ahead_is_met_and_told_by_the_job(store: Store, study_uid: str) -> None:
    """What was prepared is kept; the job asks the model once more, and has its own reason."""
    model = Counting()
    model.fault_on_device = RuntimeError("no kernel")
    ahead = make(store, model)
    worker, _ = make_worker(store, lambda _name: model, ahead=ahead)
    with running(worker):
        eventually(lambda: model.evaluations, "tried ahead")
        job_id = hand_over(store, study_uid)
        eventually(lambda: job_of(store, job_id).state is State.DEAD, "dead")

    assert (model.preparations, model.evaluations) == (1, 2)


def test_what_hangs_ahead_ends_the_process(
    store: Store, study_uid: str, real_data: RealData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No job is held whose watchdog would; what ends in time is left alone."""
    ended: list[int] = []
    gone = threading.Event()

    def leave(code: int) -> None:
        ended.append(code)
        gone.set()

    monkeypatch.setattr("gateway.pulse.os._exit", leave)
    model = Counting()
    make(store, model, hung_s=60).work()
    assert (model.evaluations, ended) == (1, [])

    model.on_device = lambda: gone.wait(30)
    make(store, model, hung_s=0.05).work()

    assert (model.evaluations, ended) == (2, [70])


def test_a_job_takes_what_was_prepared_once(store: Store, study_uid: str) -> None:
    """A second try of the job prepares anew, and what is held is let go of."""
    model, preread = Counting(), Preread(ROOM)
    ahead = make(store, model, preread=preread)
    ahead.work()
    ahead.work()
    steps, claimed = execution(store, model, ahead), claim(store, study_uid)

    steps.prepare(claimed)
    assert model.preparations == 1
    steps.prepare(claimed)

    assert model.preparations == 2
    assert preread.held_bytes == 0


def test_a_study_that_got_more_is_prepared_anew(store: Store, study_uid: str, real_data: RealData) -> None:
    """What was prepared of less is not taken."""
    model = Counting()
    ahead = make(store, model)
    ahead.work()
    with store.write() as connection:
        series_uid = connection.scalar(sa.text("SELECT series_instance_uid FROM series"))
        other = store.data_dir / "instances/other.dcm"
        other.write_bytes(real_data.cxr[1].read_bytes())
        add_instance(connection, study_uid, series_uid, "2.25.7", path="instances/other.dcm", instance_number=0)

    execution(store, model, ahead).prepare(claim(store, study_uid))

    assert model.preparations == 2


def test_another_file_of_the_same_name_is_not_taken(store: Store, study_uid: str, real_data: RealData) -> None:
    """The files are told apart by what they are, not by their names alone."""
    model = Counting()
    ahead = make(store, model)
    ahead.work()
    (file,) = (store.data_dir / "instances").rglob("*.dcm")
    file.rename(file.with_suffix(".old"))
    file.write_bytes(real_data.cxr[1].read_bytes())

    execution(store, model, ahead).prepare(claim(store, study_uid))

    assert model.preparations == 2


def test_a_fault_ahead_is_met_and_told_by_the_job(store: Store, study_uid: str) -> None:
    """It ends no worker; the job is dead with its own reason."""
    model = Counting()
    model.fault = RuntimeError("the decoder choked")
    ahead = make(store, model)
    worker, _ = make_worker(store, lambda _name: model, ahead=ahead)
    with running(worker):
        eventually(lambda: model.preparations, "tried ahead")
        job_id = hand_over(store, study_uid)
        eventually(lambda: job_of(store, job_id).state is State.DEAD, "dead")
    assert "RuntimeError" in str(job_of(store, job_id).reason)
    assert model.preparations == 2


def test_a_job_waits_for_what_is_under_way(store: Store, study_uid: str) -> None:
    """A study that is being prepared when its job comes is not prepared a second time."""
    model = Counting()
    model.may_end.clear()
    worker, _ = make_worker(store, lambda _name: model, ahead=make(store, model))
    with running(worker):
        assert model.preparing.wait(30)
        job_id = hand_over(store, study_uid)
        eventually(lambda: job_of(store, job_id).state is State.RUNNING, "claimed")
        model.may_end.set()
        eventually(lambda: job_of(store, job_id).state is State.DONE, "done")

    assert model.preparations == 1


def test_nothing_is_prepared_beyond_the_limit(store: Store, study_uid: str) -> None:
    """Voxels that do not fit are prepared when their job is there."""
    with store.write() as connection:
        connection.execute(sa.text('UPDATE instance SET "rows" = 1000, "columns" = 1000'))
    tight, wide = Counting(), Counting()

    make(store, tight, limit_bytes=4_000_000 - 1).work()
    make(store, wide, limit_bytes=4_000_000).work()

    assert (tight.preparations, wide.preparations) == (0, 1)


def test_a_study_that_just_received_is_read_and_not_yet_prepared(store: Store, study_uid: str) -> None:
    """More may come at any moment; its instances are decoded all the same."""
    model, preread = Counting(), Preread(ROOM)
    ahead = make(store, model, preread=preread)
    with store.write() as connection:
        connection.execute(sa.update(study).values(last_received_at=LATER))

    ahead.work()

    assert model.preparations == 0
    assert preread.held_bytes > 0


def test_a_busy_worker_looks_at_no_other_study(store: Store, study_uid: str) -> None:
    """While it is told to rest, nothing is read or prepared."""
    model, preread = Counting(), Preread(ROOM)
    ahead = make(store, model, preread=preread)
    ahead.rest()

    ahead.work()

    assert (model.preparations, preread.held_bytes) == (0, 0)


def test_a_worker_has_its_study_ready_before_the_job(store: Store, study_uid: str) -> None:
    """The whole way: a worker that idles, a study that arrives, its job."""
    model = Counting()
    worker, _ = make_worker(store, lambda _name: model, ahead=make(store, model))
    with running(worker):
        eventually(lambda: model.preparations, "prepared ahead")
        job_id = hand_over(store, study_uid)
        eventually(lambda: job_of(store, job_id).state is State.DONE, "done")

    assert model.preparations == 1
