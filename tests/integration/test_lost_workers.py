"""Workers under a supervisor lose their device, are stopped or get stuck: the next process does the queue, once."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from gateway.job import State
from gateway.services import SHOWN
from gateway.store import Store, jobs
from gateway.store.services import ServiceBeat, list_services
from gateway.store.tables import fhir_resource
from tests.services.process import Program
from tests.studies import REPOSITORY, RealData
from tests.working import LIMITS, add_job, eventually, job_of, take_in

_START_S = 240
_SUPERVISOR = """
import json, sys
from gateway.log import configure_logging
from gateway.supervisor import Supervisor
configure_logging("json", "INFO", "serve")
command = [sys.executable, "-m", "tests.worker_process", *json.loads(sys.argv[1])]
sys.exit(Supervisor(["work"] * int(sys.argv[2]), command, silence_s=float(sys.argv[3])).run())
"""


@contextmanager
def _supervised(
    store: Store, point: str, marker: Path, *, workers: int = 1, silence_s: float = 60
) -> Iterator[Program]:
    url = store.engine.url.render_as_string(hide_password=False)
    arguments = json.dumps([url, str(store.data_dir), point, str(marker), "3600"])
    program = Program(
        [sys.executable, "-c", _SUPERVISOR, arguments, str(workers), str(silence_s)],
        log=store.data_dir / "serve.log",
        cwd=REPOSITORY,
        env={"OMP_NUM_THREADS": "1"},
    )
    program.start()
    try:
        yield program
    finally:
        program.stop()


def _wait_until_done(store: Store, job_ids: Sequence[str], program: Program) -> None:
    def are_done() -> bool:
        with store.write() as connection:  # as the dispatcher does
            jobs.requeue_expired(connection, datetime.now(UTC), LIMITS.max_attempts)
        return all(job_of(store, each).state is State.DONE for each in job_ids)

    try:
        eventually(are_done, "all jobs done", _START_S)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{program.log_tail()}") from error


def _reports(store: Store) -> list[tuple[str, int]]:
    with store.read() as connection:
        return sorted((row.resource_id, row.version) for row in connection.execute(sa.select(fhir_resource)))


def _beats(store: Store) -> list[ServiceBeat]:
    with store.read() as connection:
        return list_services(connection, datetime.now(UTC) - SHOWN)


def _counted(store: Store, name: str) -> bool:
    return any(beat.counters.get(name) == 1 for beat in _beats(store))


@pytest.mark.parametrize("point", ["lost", "lost together"])
def test_a_lost_device_costs_no_job_a_try(store: Store, real_data: RealData, tmp_path: Path, point: str) -> None:
    """Every job that follows would fail too: the process ends, the next one does the queue, and nothing is dead."""
    uids = [take_in(store, file) for file in real_data.cxr]
    job_ids = [add_job(store, uid) for uid in uids]

    with _supervised(store, point, tmp_path / "marker") as program:
        _wait_until_done(store, job_ids, program)
        eventually(lambda: _counted(store, 'hybridmed_role_restarts_total{why="device_lost"}'), "the metric", _START_S)

    assert _reports(store) == sorted((uid, 1) for uid in uids)
    assert [job_of(store, each).attempts for each in job_ids] == [1, 1, 1]
    assert "device-side assert triggered" in program.log_tail()


def test_a_job_that_takes_the_device_again_and_again_is_given_up(
    sqlite_store: Store, real_data: RealData, tmp_path: Path
) -> None:
    """Three processes lose their device on it; then it is dead with a sentence, and the others are done."""
    uids = [take_in(sqlite_store, file) for file in real_data.cxr]
    poison, *others = [add_job(sqlite_store, uid) for uid in uids]
    (tmp_path / "poison").write_text(uids[0])

    with _supervised(sqlite_store, "poison", tmp_path / "poison") as program:
        _wait_until_done(sqlite_store, others, program)
        eventually(lambda: job_of(sqlite_store, poison).state is State.DEAD, "the poisoned job dead", _START_S)

    reason = job_of(sqlite_store, poison).reason or ""
    assert reason.startswith("DeviceLostError: cuda: CUDA error: device-side assert triggered (loss 3 of 3)")
    assert [job_of(sqlite_store, each).attempts for each in others] == [1, 1]
    assert _reports(sqlite_store) == sorted((uid, 1) for uid in uids[1:])


@pytest.mark.parametrize("point", ["device", "stuck"])
def test_a_worker_that_gives_no_sign_of_life_is_replaced(
    store: Store, real_data: RealData, tmp_path: Path, point: str
) -> None:
    """It is stopped for good, or holds the interpreter's lock for ever: killed by its supervisor, its job done once."""
    uid = take_in(store, real_data.cxr[0])
    job_id = add_job(store, uid)

    with _supervised(store, point, tmp_path / "marker", silence_s=6) as program:
        eventually((tmp_path / "marker").exists, "the worker holds the job", _START_S)
        (first,) = _beats(store)
        if point == "device":
            os.kill(first.pid, signal.SIGSTOP)
        _wait_until_done(store, [job_id], program)
        eventually(lambda: _counted(store, 'hybridmed_role_restarts_total{why="silent"}'), "the metric", _START_S)

    assert '"event": "role.silent"' in program.log_tail().replace('":"', '": "')
    assert _reports(store) == [(uid, 1)]
    assert job_of(store, job_id).attempts == 2


def test_a_job_of_a_stopped_worker_is_done_by_the_other_once(
    sqlite_store: Store, real_data: RealData, tmp_path: Path
) -> None:
    """The lease passes on before the silence ends; what the stopped one held is not done again by its successor."""
    uid = take_in(sqlite_store, real_data.cxr[0])
    job_id = add_job(sqlite_store, uid)

    with _supervised(sqlite_store, "device", tmp_path / "marker", workers=2, silence_s=20) as program:
        eventually((tmp_path / "marker").exists, "a worker holds the job", _START_S)
        owner = job_of(sqlite_store, job_id).lease_owner or ""
        os.kill(next(beat.pid for beat in _beats(sqlite_store) if owner.startswith(beat.id)), signal.SIGSTOP)
        _wait_until_done(sqlite_store, [job_id], program)
        eventually(lambda: "role.silent" in program.log_tail(), "the stopped one killed", _START_S)

    assert _reports(sqlite_store) == [(uid, 1)]
    assert job_of(sqlite_store, job_id).attempts == 2
