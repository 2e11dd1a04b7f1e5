"""Several worker processes, killed and racing, leave exactly one result for each job."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.job import State
from gateway.store import Store, jobs
from gateway.store.results import list_artefacts
from gateway.store.tables import fhir_resource
from tests.services.process import Program
from tests.studies import REPOSITORY, RealData
from tests.working import LIMITS, add_job, eventually, job_of, take_in

_START_S = 240


@contextmanager
def _worker(store: Store, name: str, *arguments: str) -> Iterator[Program]:
    url = store.engine.url.render_as_string(hide_password=False)
    program = Program(
        [sys.executable, "-m", "tests.worker_process", url, str(store.data_dir), *arguments],
        log=store.data_dir / f"{name}.log",
        cwd=REPOSITORY,
        env={"OMP_NUM_THREADS": "1"},
    )
    program.start()
    try:
        yield program
    finally:
        program.stop()


def _reports(store: Store) -> list[tuple[str, int]]:
    with store.read() as connection:
        return [(row.resource_id, row.version) for row in connection.execute(fhir_resource.select())]


@pytest.mark.parametrize("point", ["device", "papers", "commit"])
def test_a_killed_worker_leaves_its_job_to_another(
    store: Store, real_data: RealData, tmp_path: Path, point: str
) -> None:
    """It dies holding the lease, with the model running, its objects out or the transaction open; another finishes."""
    study_uid = take_in(store, real_data.cxr[0])
    job_id = add_job(store, study_uid)
    with _worker(store, "first", point, str(tmp_path / "held")) as first:
        eventually((tmp_path / "held").exists, "the first worker holds the job", _START_S)
        os.kill(first.pid, signal.SIGKILL)
    assert job_of(store, job_id).state is State.RUNNING
    with store.read() as connection:
        out = list_artefacts(connection, job_id)

    def swept() -> bool:
        with store.write() as connection:
            return jobs.requeue_expired(connection, datetime.now(UTC), LIMITS.max_attempts) == 1

    eventually(swept, "the lease runs out", _START_S)
    with _worker(store, "second"):
        eventually(lambda: job_of(store, job_id).state is State.DONE, "the second worker is done", _START_S)

    with store.read() as connection:
        artefacts = list_artefacts(connection, job_id)
    assert [one.kind for one in out] == ([] if point == "device" else ["sr-findings", "seg", "sr-measurements"])
    assert artefacts[: len(out)] == out
    assert sorted(one.kind for one in artefacts) == ["picture-overlay", "seg", "sr-findings", "sr-measurements"]
    assert _reports(store) == [(study_uid, 1)]
    assert job_of(store, job_id).attempts == 2


def test_a_worker_that_hangs_ends_itself(sqlite_store: Store, real_data: RealData, tmp_path: Path) -> None:
    """The device does not return: after the limit the process ends, and the job waits with the reason for another."""
    job_id = add_job(sqlite_store, take_in(sqlite_store, real_data.cxr[0]))

    with _worker(sqlite_store, "hanging", "device", str(tmp_path / "held"), "12") as hanging:
        eventually((tmp_path / "held").exists, "the worker holds the job", _START_S)
        eventually(lambda: not hanging.is_running, "the worker ends by itself", _START_S)

    job = job_of(sqlite_store, job_id)
    assert (job.state, job.reason) == (State.QUEUED, "JobHungError: no result within 12 s")
    with _worker(sqlite_store, "second"):
        eventually(lambda: job_of(sqlite_store, job_id).state is State.DONE, "the second worker is done", _START_S)


@pytest.mark.parametrize("hangs", [False, True], ids=["killed", "hangs"])
def test_jobs_on_the_device_together_go_to_another(
    store: Store, real_data: RealData, tmp_path: Path, hangs: bool
) -> None:
    """Their worker is killed, or ends itself: each of them is tried again by itself and has one result."""
    uids = [take_in(store, file) for file in real_data.cxr]
    job_ids = [add_job(store, uid) for uid in uids]
    with _worker(store, "first", "together", str(tmp_path / "held"), "12" if hangs else "3600") as first:
        eventually((tmp_path / "held").exists, "the first worker holds two jobs", _START_S)
        if hangs:
            eventually(lambda: not first.is_running, "the worker ends by itself", _START_S)
        else:
            os.kill(first.pid, signal.SIGKILL)
    assert job_of(store, job_ids[0]).state is State.DONE

    def swept() -> bool:
        with store.write() as connection:
            jobs.requeue_expired(connection, datetime.now(UTC), LIMITS.max_attempts)
        return all(job_of(store, each).state is State.QUEUED for each in job_ids[1:])

    eventually(swept, "both leases run out", _START_S)
    assert not hangs or any("JobHungError" in (job_of(store, each).reason or "") for each in job_ids[1:])
    with _worker(store, "second"):
        eventually(lambda: all(job_of(store, each).state is State.DONE for each in job_ids), "all done", _START_S)

    assert sorted(_reports(store)) == sorted((uid, 1) for uid in uids)
    assert [job_of(store, each).attempts for each in job_ids] == [1, 2, 2]


def test_two_workers_share_the_jobs(store: Store, real_data: RealData) -> None:
    """Both look at the same queue; each job is claimed once and has one result."""
    uids = [take_in(store, file) for file in real_data.cxr]
    job_ids = [add_job(store, uid) for uid in uids]

    with _worker(store, "one"), _worker(store, "other"):
        eventually(lambda: all(job_of(store, each).state is State.DONE for each in job_ids), "all done", _START_S)

    assert sorted(_reports(store)) == sorted((uid, 1) for uid in uids)
    assert [job_of(store, each).attempts for each in job_ids] == [1, 1, 1]
