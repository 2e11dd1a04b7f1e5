"""A worker as a process, which a test may kill: `python -m tests.worker_process URL FOLDER [POINT FILE [LIMIT]]`.

At POINT ('device', 'together', 'papers' or 'commit') it makes FILE and goes on no further: 'together' is with all jobs
but the first on the device in one call. At 'stuck' it lets no other thread have a turn; at 'lost' and 'lost together'
its device fails, from then on for every job. Where FILE is there, it does nothing of the kind: another was before it.
At 'poison' the device fails on the study whose UID FILE holds. A job that takes longer than LIMIT seconds hangs.
"""

import ctypes
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from sqlalchemy.engine import Connection

from gateway.report.fhir_input import FhirInput
from gateway.services import Heartbeat
from gateway.store import open_store
from gateway.store.results import FhirVersion
from gateway.supervisor import count_restarts, run_role
from gateway.worker import Worker
from inference.device import using_device
from inference.findings import Findings, Outcome
from tests.thresholding import Thresholding
from tests.working import LIMITS, RENDERERS, make_worker, render_report

_ASSERTED = "CUDA error: device-side assert triggered\nCUDA kernel errors might be asynchronously reported"


class _Device:
    """A GPU that fails once, and then for as long as its process lives, with what torch raises of a real one."""

    def __init__(self) -> None:
        self.is_lost = False

    def work(self, *, fails: bool) -> None:
        """Raise DeviceLostError where it fails, or failed before."""
        self.is_lost = self.is_lost or fails
        if self.is_lost:
            with using_device(torch.device("cuda")):
                raise torch.AcceleratorError(_ASSERTED)


class _InBatches(Thresholding):
    """Evaluates the first of three once all are prepared, and the others together: then something happens."""

    def __init__(self, happens: Callable[[], None], *, waits: bool = True) -> None:
        super().__init__(self._wait)
        self._happens, self._waits = happens, waits

    def _wait(self) -> None:
        for _ in range(3 if self._waits else 0):
            self.prepared.acquire()
        self._waits = False

    def infer_many(self, inferences: Sequence[Callable[[], Sequence[Outcome]]], /) -> Sequence[Sequence[Outcome]]:
        """Let it happen."""
        self._happens()
        return [infer() for infer in inferences]


class _Poisoned(Thresholding):
    """Loses the device on one study."""

    def __init__(self, device: _Device, study_uid: str) -> None:
        super().__init__()
        self._device, self._study_uid = device, study_uid

    def prepare(self, series: Sequence[Sequence[Path]], /) -> Callable[[], Sequence[Outcome]]:
        """Read, and fail later."""
        infer = super().prepare(series)
        is_poison = self._study_uid.encode() in series[0][0].read_bytes()

        def infer_on_device() -> Sequence[Outcome]:
            self._device.work(fails=is_poison)
            return infer()

        return infer_on_device


def _model(point: str, marker: Path, hold: Callable[[], None]) -> Thresholding:
    device = _Device()

    def is_first() -> bool:
        was_there = marker.exists()
        marker.touch()
        return not was_there

    def fail_once() -> None:
        device.work(fails=is_first())

    def stick() -> None:
        if is_first():
            ctypes.PyDLL(None).pause()  # holds the interpreter's lock meanwhile

    made: dict[str, Callable[[], Thresholding]] = {
        "device": lambda: Thresholding(hold),
        "stuck": lambda: Thresholding(stick),
        "lost": lambda: Thresholding(fail_once),
        "together": lambda: _InBatches(hold),
        "lost together": lambda: _InBatches(fail_once, waits=not marker.exists()),
        "poison": lambda: _Poisoned(device, marker.read_text()),
    }
    return made.get(point, Thresholding)()


class _Beating:
    """A worker with its heartbeat around it."""

    name = "work"

    def __init__(self, worker: Worker, heartbeat: Heartbeat) -> None:
        self._worker, self._heartbeat = worker, heartbeat

    def run(self, stop: threading.Event) -> None:
        """Work until told to stop."""
        with self._heartbeat:
            self._worker.run(stop)


def main(url: str, folder: str, point: str = "", marker: str = "", limit_s: str = "3600", _role: str = "work") -> None:
    """Work until SIGTERM."""

    def hold() -> None:
        if not Path(marker).exists():
            Path(marker).touch()
            time.sleep(600)

    def render(connection: Connection, finished: FhirInput, /) -> Sequence[FhirVersion]:
        if point == "commit":
            hold()
        return render_report(connection, finished)

    def draw(outcome: Findings, sources: Sequence[Path]) -> Mapping[str, bytes]:
        if point == "papers":
            hold()
        return RENDERERS.pictures(outcome, sources)

    model = _model(point, Path(marker), hold)
    together = 4 if "together" in point else 1
    limits = replace(LIMITS, lease_s=6.0, job_limit_s=float(limit_s), together=together)
    store = open_store(url, Path(folder))
    worker, heartbeat = make_worker(
        store, lambda _name: model, limits=limits, renderers=replace(RENDERERS, fhir=render, pictures=draw)
    )
    count_restarts(heartbeat.counters)
    run_role(_Beating(worker, heartbeat))
    store.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
