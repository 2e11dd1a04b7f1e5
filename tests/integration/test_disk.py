"""A data folder that takes no writes shows where operators look."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gateway.disk import read_only_folders
from gateway.errors import OutOfResourcesError
from gateway.job import State
from gateway.services import Heartbeat
from gateway.spool import DiskLimits, Origin, Spool
from gateway.store import Store, open_store, schema
from gateway.store.services import list_services
from gateway.web.metrics import render_metrics
from gateway.web.readiness import ReadinessCheck
from tests.acceptance.faults.disk import Disk
from tests.stores import NOON
from tests.studies import RealData
from tests.thresholding import Thresholding
from tests.working import LIMITS, add_job, eventually, job_of, make_worker, running, take_in


def test_a_folder_that_became_read_only_is_named(tmp_path: Path) -> None:
    """In /readyz and in the metrics, for as long as it lasts; folders that are not there yet are none of it."""
    if not Disk.can_mount(tmp_path):
        pytest.skip("needs the right to mount a file system")
    with Disk(tmp_path / "data") as disk:
        (tmp_path / "data" / "incoming").mkdir()
        store = open_store(f"sqlite:///{tmp_path / 'hybridmed.db'}", tmp_path / "data")
        readiness = ReadinessCheck(store, 0, None)

        before = read_only_folders(tmp_path / "data")
        disk.make_read_only("incoming")
        shown = {part.name: part for part in readiness.look().parts}["disk"]
        metrics = render_metrics(store)[0].decode()
        disk.make_writable()
        afterwards = {part.name: part for part in readiness.look().parts}["disk"]
        store.close()

    assert before == []
    assert (shown.state, shown.reason) == ("down", "read-only in the data folder: incoming")
    assert "hybridmed_disk_writable 0.0" in metrics
    assert afterwards.state == "ready"


def test_an_instance_refused_for_a_read_only_spool_leaves_nothing(tmp_path: Path) -> None:
    """The sender hears A700, and what could not be removed then goes with the next instance."""
    if not Disk.can_mount(tmp_path):
        pytest.skip("needs the right to mount a file system")
    origin = Origin("a1", "CT1", "HYBRIDMED", "1.2.840.10008.1.2.1", "1.2.840.10008.5.1.4.1.1.2", "1.2.3")
    with Disk(tmp_path / "data") as disk, Spool(tmp_path / "data", "s1", DiskLimits(0, 1 << 20)) as spool:
        refused = spool.begin(origin, 1)
        refused.write(b"some")
        disk.make_read_only("incoming")
        with pytest.raises(OutOfResourcesError):
            refused.commit()
        refused.discard()
        disk.make_writable()
        left = [path.name for path in spool.folder.glob("a1_*")]
        taken = spool.begin(origin, 2)
        taken.write(b"some")
        taken.commit()
        kept = [path.name for path in spool.folder.glob("a1_*")]

    assert left == ["a1_1.part"]
    assert [name.partition("_")[2][0] for name in kept] == ["2"]


def test_a_disk_that_takes_no_results_costs_no_job_its_tries(tmp_path: Path, real_data: RealData) -> None:
    """The job waits, whatever its limit of tries, and is done once the disk takes results again."""
    if not Disk.can_mount(tmp_path):
        pytest.skip("needs the right to mount a file system")
    with Disk(tmp_path / "data") as disk:
        store = open_store(f"sqlite:///{tmp_path / 'hybridmed.db'}", tmp_path / "data")
        schema.upgrade(store)
        (tmp_path / "data" / "results").mkdir()
        job_id = add_job(store, take_in(store, real_data.cxr[0]))
        model = Thresholding()
        worker, heartbeat = make_worker(store, lambda _name: model, limits=replace(LIMITS, max_attempts=1))
        disk.make_read_only("results")

        with running(worker):
            eventually(lambda: job_of(store, job_id).reason, "the job failed once")
            waiting = job_of(store, job_id)
            eventually(lambda: "disk" in _told(store, heartbeat), "the worker says that the disk takes no results")
            disk.make_writable()
            eventually(lambda: job_of(store, job_id).state is State.DONE, "the job is done")
            told = _told(store, heartbeat)
        store.close()

    assert (waiting.state, waiting.attempts) == (State.QUEUED, 0)
    assert waiting.reason == "OSError: Read-only file system"
    assert told == ""


def _told(store: Store, heartbeat: Heartbeat) -> str:
    """Return what a role says of parts that are away."""
    heartbeat.beat_now()
    with store.read() as connection:
        return list_services(connection, NOON)[0].reason or ""
