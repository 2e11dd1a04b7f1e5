"""A worker as a process, which a test may kill: `python -m tests.worker_process URL FOLDER [POINT FILE [LIMIT]]`.

At POINT ('device', 'together', 'papers' or 'commit') it makes FILE and goes on no further: 'together' is with all jobs
but the first on the device in one call. A job that takes longer than LIMIT seconds hangs.
"""

import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from sqlalchemy.engine import Connection

from gateway.report.fhir_input import FhirInput
from gateway.store import open_store
from gateway.store.results import FhirVersion
from inference.findings import Findings, Outcome
from tests.thresholding import Thresholding
from tests.working import LIMITS, RENDERERS, make_worker, render_report


class _InBatches(Thresholding):
    """Evaluates the first of three once all are prepared, and the others together, for ever."""

    def __init__(self, hold: Callable[[], None]) -> None:
        super().__init__(lambda: [self.prepared.acquire() for _ in range(3)])  # type: ignore[arg-type,return-value]
        self._hold = hold

    def infer_many(self, inferences: Sequence[Callable[[], Sequence[Outcome]]], /) -> Sequence[Sequence[Outcome]]:
        """Hold."""
        self._hold()
        return [infer() for infer in inferences]


def main(url: str, folder: str, point: str = "", marker: str = "", limit_s: str = "3600") -> None:
    """Work until SIGTERM."""

    def hold() -> None:
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

    model = _InBatches(hold) if point == "together" else Thresholding(hold if point == "device" else lambda: None)
    together = 4 if point == "together" else 1
    limits = replace(LIMITS, lease_s=2.0, job_limit_s=float(limit_s), together=together)
    store = open_store(url, Path(folder))
    worker, heartbeat = make_worker(
        store, lambda _name: model, limits=limits, renderers=replace(RENDERERS, fhir=render, pictures=draw)
    )
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    with heartbeat:
        worker.run(stop)
    store.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
