"""A worker as a process, which a test may kill: `python -m tests.worker_process URL FOLDER [POINT FILE [LIMIT]]`.

At POINT ('device' or 'commit') it makes FILE and goes on no further. A job that takes longer than LIMIT seconds hangs.
"""

import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sqlalchemy.engine import Connection

from gateway.report.fhir_input import FhirInput
from gateway.store import open_store
from gateway.store.results import FhirVersion
from tests.thresholding import Thresholding
from tests.working import LIMITS, RENDERERS, make_worker, render_report


def main(url: str, folder: str, point: str = "", marker: str = "", limit_s: str = "3600") -> None:
    """Work until SIGTERM."""

    def hold() -> None:
        Path(marker).touch()
        time.sleep(600)

    def render(connection: Connection, finished: FhirInput, /) -> Sequence[FhirVersion]:
        if point == "commit":
            hold()
        return render_report(connection, finished)

    model = Thresholding(hold if point == "device" else lambda: None)
    limits = replace(LIMITS, lease_s=2.0, job_limit_s=float(limit_s))
    store = open_store(url, Path(folder))
    worker, heartbeat = make_worker(
        store, lambda _name: model, limits=limits, renderers=replace(RENDERERS, fhir=render)
    )
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    with heartbeat:
        worker.run(stop)
    store.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
