"""`serve --only web` over a store with a study and its results."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import sqlalchemy as sa

from gateway.store import Store, open_store, schema
from gateway.store.tables import fhir_resource, instance
from tests.fuzz.web.peer import ask, get
from tests.fuzz.web.requests import Known
from tests.services.process import Program, free_port
from tests.unit.report.outcomes import write_xray
from tests.verifying import OUTCOME, take_in_all, work

_START_S = 90
_END_S = 60
_MIB = 1 << 20
_NO_LIMIT = "1000000"
_UNFORESEEN = ("web.failed", "Traceback", "Exception in ASGI")
"""What the log says of an error that nobody foresaw, also after an answer has begun."""


@dataclass(frozen=True)
class WebTarget:
    """A server that listens."""

    port: int
    program: Program
    data_dir: Path
    known: Known

    @property
    def is_alive(self) -> bool:
        """Whether the process goes on."""
        return self.program.is_running

    def memory_mib(self) -> float:
        """Return its resident memory, without that of the processes that decode for it: they come and go."""
        return float(psutil.Process(self.program.pid).memory_info().rss / _MIB)

    def decoders_mib(self) -> list[float]:
        """Return the resident memory of each process that decodes for it."""
        sizes = []
        for child in psutil.Process(self.program.pid).children(recursive=True):
            try:
                sizes.append(float(child.memory_info().rss / _MIB))
            except psutil.NoSuchProcess:  # it ended meanwhile
                continue
        return sizes

    def threads(self) -> int:
        """Return how many threads it has."""
        return int(psutil.Process(self.program.pid).num_threads())

    def half_written(self) -> int:
        """Return how many files lie half-written."""
        return sum(1 for _ in (self.data_dir / "incoming").rglob("*.part"))

    def unforeseen(self) -> list[str]:
        """Return the lines of its log that tell of errors that nobody foresaw."""
        lines = self.program.log.read_text(errors="replace").splitlines()
        return [line for line in lines if any(word in line for word in _UNFORESEEN)]


@contextmanager
def running(home: Path) -> Iterator[WebTarget]:
    """Run the server; on leaving, it has ended in good order."""
    home.mkdir(parents=True)
    data_dir = home / "data"
    data_dir.mkdir()
    store = open_store(f"sqlite:///{data_dir / 'hybridmed.db'}", data_dir)
    try:
        schema.upgrade(store)
        known = _fill(store, home)
    finally:
        store.close()
    port = free_port()
    (home / "hybridmed.toml").write_text("")
    env = {
        "HYBRIDMED_CONFIG": str(home / "hybridmed.toml"),
        "HYBRIDMED_DATA_DIR": str(data_dir),
        "HYBRIDMED_HTTP_PORT": str(port),
        "HYBRIDMED_WEB_PROCESSES": "1",
        "HYBRIDMED_RESERVE_MIB": "64",
        "HYBRIDMED_LOG_FORMAT": "json",
        **{f"HYBRIDMED_ACCESS__{name}": _NO_LIMIT for name in ("REQUESTS_PER_S", "BURST")},
        **{f"HYBRIDMED_ACCESS__ADDRESS_{name}": _NO_LIMIT for name in ("REQUESTS_PER_S", "BURST")},
        "HYBRIDMED_ACCESS__FAILURES_PER_MINUTE": _NO_LIMIT,
    }
    program = Program([sys.executable, "-m", "gateway", "serve", "--only", "web"], log=home / "log", env=env)
    program.start()
    try:
        program.wait_ready(lambda: _answers(port), _START_S)
        yield WebTarget(port, program, data_dir, known)
    finally:
        program.stop(_END_S)


def _answers(port: int) -> bool:
    try:
        return ask(port, "GET", get("/healthz"), 5).status == 200
    except OSError:
        return False


def _fill(store: Store, home: Path) -> Known:
    """Put a chest X-ray and the results of a job into the store, as receiver and worker do."""
    folder = home / "sent"
    folder.mkdir()
    study = take_in_all(store, write_xray(folder))
    job = work(store, study, OUTCOME)
    with store.read() as connection:
        kept = connection.execute(sa.select(instance.c.series_instance_uid, instance.c.sop_instance_uid)).first()
        ids = connection.execute(
            sa.select(fhir_resource.c.type, sa.func.min(fhir_resource.c.resource_id)).group_by(fhir_resource.c.type)
        )
        resources = {kind: uid for kind, uid in ids}
    assert kept is not None
    return Known(study, kept.series_instance_uid, kept.sop_instance_uid, job, resources)
