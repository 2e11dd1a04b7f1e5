"""One claim wins: external performers against each other and against our own workers, on SQLite and PostgreSQL."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from gateway.job import State
from gateway.store import Store, jobs
from gateway.store.workitem_query import workitem_uid
from gateway.workitem.refusal import Refusal, WorkitemError
from tests.upsteps import STUDY, make_worklist, take_study
from tests.working import add_job, job_of, make_worker, running

_CONTENDERS = 8


def _at_once(steps: list[Callable[[], str]]) -> list[str]:
    """Run steps from as many threads, begun together; return what each came to."""
    barrier = threading.Barrier(len(steps))

    def run(step: Callable[[], str]) -> str:
        barrier.wait(120)
        return step()

    with ThreadPoolExecutor(len(steps)) as pool:
        return list(pool.map(run, steps))


def test_of_many_performers_one_wins(store: Store) -> None:
    """Of claims made at once exactly one succeeds; the others are told that the step is IN PROGRESS."""
    take_study(store)
    uid = workitem_uid(add_job(store, STUDY))
    workitems = make_worklist(store).workitems

    def claim(number: int) -> str:
        try:
            workitems.change_state(uid, "IN PROGRESS", f"1.2.840.99.{number}")
        except WorkitemError as error:
            return error.refusal.name
        return "claimed"

    outcomes = _at_once([lambda number=number: claim(number) for number in range(_CONTENDERS)])  # type: ignore[misc] # the number is bound at once

    assert sorted(outcomes) == [Refusal.IN_PROGRESS.name] * (_CONTENDERS - 1) + ["claimed"]


def test_performers_and_workers_claim_the_same_lease(store: Store) -> None:
    """Of performers and workers that claim at once one wins, and the job is tried once."""
    take_study(store)
    job_id = add_job(store, STUDY)
    uid = workitem_uid(job_id)
    workitems = make_worklist(store).workitems

    def outside() -> str:
        try:
            workitems.change_state(uid, "IN PROGRESS", "1.2.840.99.1")
        except WorkitemError:
            return "refused"
        return "claimed"

    def inside() -> str:
        with store.write() as connection:
            return "claimed" if jobs.claim(connection, job_id, "worker", datetime.now(UTC), 60) else "refused"

    outcomes = _at_once([outside, inside] * (_CONTENDERS // 2))

    assert sorted(outcomes) == ["claimed"] + ["refused"] * (_CONTENDERS - 1)
    assert job_of(store, job_id).attempts == 1


def test_a_worker_never_runs_a_claimed_job(store: Store) -> None:
    """A worker that gets the message of a claimed job lets it be, and runs the next one."""
    take_study(store)
    take_study(store, "1.2.4")
    claimed, free = add_job(store, STUDY), add_job(store, "1.2.4")
    make_worklist(store).workitems.change_state(workitem_uid(claimed), "IN PROGRESS", "1.2.840.99.1")
    asked: list[str] = []
    ran = threading.Event()

    def find_model(name: str) -> None:
        asked.append(name)
        ran.set()

    worker, _ = make_worker(store, find_model)
    with running(worker):
        assert ran.wait(120)

    assert len(asked) == 1
    assert job_of(store, claimed).state is State.RUNNING
    assert job_of(store, claimed).attempts == 1
    assert job_of(store, free).state is not State.QUEUED or job_of(store, free).attempts == 1
