"""Jobs of one bundle go to the device together, and each has a result of its own whatever becomes of the others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.job import State
from gateway.store import Store, jobs
from gateway.store.results import list_artefacts
from gateway.worker import Limits
from inference.findings import Outcome
from tests.studies import RealData
from tests.thresholding import Thresholding
from tests.working import LIMITS, add_job, eventually, job_of, make_worker, running, take_in

FOUR = replace(LIMITS, together=4)
LONG_S = 120.0
"""After which a worker hangs: no measure of what is fast enough."""


class Batching(Thresholding):
    """Evaluates several studies in one call; a test stops the first call, and spoils calls of several.

    Parameters
    ----------
    fault
        Raised by every call of several.
    """

    def __init__(self, fault: Exception | None = None) -> None:
        super().__init__()
        self.fault = fault
        self.sizes: list[int] = []
        self.on_device, self.go_on = threading.Event(), threading.Event()

    def prepare(self, series: Sequence[Sequence[Path]], /) -> Callable[[], Sequence[Outcome]]:
        """Prepare one that is counted when it is called alone."""
        infer = super().prepare(series)

        def alone() -> Sequence[Outcome]:
            self._hold(1)
            return infer()

        return alone

    def infer_many(self, inferences: Sequence[Callable[[], Sequence[Outcome]]], /) -> Sequence[Sequence[Outcome]]:
        """Answer all, or none."""
        self._hold(len(inferences))
        if self.fault is not None:
            raise self.fault
        answers = [infer() for infer in inferences]
        del self.sizes[-len(inferences) :]  # those calls were part of this one
        return answers

    def _hold(self, size: int) -> None:
        self.sizes.append(size)
        self.on_device.set()
        assert self.go_on.wait(LONG_S)


def _waiting(store: Store, real_data: RealData, count: int) -> list[str]:
    return [add_job(store, take_in(store, file)) for file in real_data.cxr[:count]]


def _until_prepared(model: Batching, count: int) -> None:
    assert model.on_device.wait(LONG_S)
    for _ in range(count):
        assert model.prepared.acquire(timeout=LONG_S)


@pytest.mark.parametrize("fault", [None, ValueError("one of them is broken")])
def test_jobs_that_wait_are_evaluated_in_one_call(store: Store, real_data: RealData, fault: Exception | None) -> None:
    """The first goes alone, those that waited meanwhile together; where that fails, each by itself."""
    model = Batching(fault)
    ids = _waiting(store, real_data, 3)
    worker, heartbeat = make_worker(store, lambda _name: model, limits=FOUR)
    with running(worker):
        _until_prepared(model, 3)
        model.go_on.set()
        eventually(lambda: all(job_of(store, each).state is State.DONE for each in ids), "all done", LONG_S)

    assert model.sizes == ([1, 2] if fault is None else [1, 2, 1, 1])
    assert [job_of(store, each).attempts for each in ids] == [1, 1, 1]
    assert heartbeat.counters.snapshot()['hybridmed_jobs_done_total{bundle="thresholding"}'] == 3
    with store.read() as connection:
        studies = {each: {one.study_instance_uid for one in list_artefacts(connection, each)} for each in ids}
    assert [studies[each] for each in ids] == [{job_of(store, each).study_instance_uid} for each in ids]


def test_a_job_that_breaks_the_model_spoils_no_neighbour(store: Store, real_data: RealData) -> None:
    """The call of several fails by it; alone it is dead with its own reason, and the others are done."""
    model = Batching()
    first, second, third = _waiting(store, real_data, 3)
    broken = job_of(store, second).study_instance_uid
    prepare = model.prepare

    def preparing(series: Sequence[Sequence[Path]], /) -> Callable[[], Sequence[Outcome]]:
        infer = prepare(series)

        def choosing() -> Sequence[Outcome]:
            (outcome,) = infer()
            if outcome.series_instance_uid == real_series[broken]:
                raise KeyError("x")
            return [outcome]

        return choosing

    with store.read() as connection:
        rows = connection.exec_driver_sql("SELECT study_instance_uid, series_instance_uid FROM series").all()
    real_series = {study: series for study, series in rows}
    model.prepare = preparing  # type: ignore[method-assign]  # a model that one study breaks
    worker, _ = make_worker(store, lambda _name: model, limits=FOUR)
    with running(worker):
        _until_prepared(model, 3)
        model.go_on.set()
        eventually(lambda: job_of(store, third).state is State.DONE, "the third is done", LONG_S)

    assert [job_of(store, each).state for each in (first, second)] == [State.DONE, State.DEAD]
    assert (job_of(store, second).reason or "").startswith("KeyError")


@pytest.mark.parametrize("limits", [LIMITS, replace(FOUR, max_attempts=1)], ids=["not wanted", "one try only"])
def test_jobs_go_alone_where_they_must(store: Store, real_data: RealData, limits: Limits) -> None:
    """Where the operator says so, and where a neighbour might cost a job its only try."""
    model = Batching()
    model.go_on.set()
    ids = _waiting(store, real_data, 3)
    worker, _ = make_worker(store, lambda _name: model, limits=limits)
    with running(worker):
        eventually(lambda: all(job_of(store, each).state is State.DONE for each in ids), "all done", LONG_S)

    assert model.sizes == [1, 1, 1]


def test_a_job_that_was_tried_before_goes_alone(store: Store, real_data: RealData) -> None:
    """It may have ended its worker: it takes no other along."""
    model = Batching()
    first, second, third = _waiting(store, real_data, 3)
    with store.write() as connection:
        claim = jobs.claim(connection, second, "gone", datetime.now(UTC), 60)
        assert claim is not None
        jobs.release_for_retry(connection, claim, datetime.now(UTC), "the worker died", LIMITS.retry_first)
    worker, _ = make_worker(store, lambda _name: model, limits=FOUR)
    with running(worker):
        _until_prepared(model, 2)
        model.go_on.set()
        eventually(
            lambda: all(job_of(store, each).state is State.DONE for each in (first, second, third)), "all done", LONG_S
        )

    assert model.sizes == [1, 1, 1]
    assert job_of(store, second).attempts == 2


def test_on_stop_what_is_not_on_the_device_is_given_back(store: Store, real_data: RealData) -> None:
    """The try does not count."""
    model = Batching()
    ids = _waiting(store, real_data, 3)
    worker, _ = make_worker(store, lambda _name: model, limits=FOUR)
    with running(worker) as stop:
        _until_prepared(model, 3)
        stop.set()
        model.go_on.set()

    assert job_of(store, ids[0]).state is State.DONE
    assert [(job_of(store, each).state, job_of(store, each).attempts) for each in ids[1:]] == [(State.QUEUED, 0)] * 2
