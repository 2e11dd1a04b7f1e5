"""A receiver as a process, over one of the two paths; its memory and its books."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import sqlalchemy as sa

from gateway.store import open_store, schema
from gateway.store.tables import instance, quarantine
from tests.fuzz.requests import COMPLETE_STUDY
from tests.services.process import free_port, listens, wait_until
from tests.stores import add_series, add_study

_START_S = 60
_END_S = 60
_MIB = 1 << 20
_UNFORESEEN = ("request.failed", "thread.failed", "Traceback")
"""Of what the log tells; `workitem.failed` has an answer."""


@dataclass(frozen=True)
class Target:
    """A receiver that listens."""

    path: str
    port: int
    process: subprocess.Popen[bytes]
    data_dir: Path

    @property
    def is_alive(self) -> bool:
        """Whether the process goes on."""
        return self.process.poll() is None

    def memory_mib(self) -> float:
        """Return its resident memory."""
        return float(psutil.Process(self.process.pid).memory_info().rss / _MIB)

    def threads(self) -> int:
        """Return how many threads it has."""
        return int(psutil.Process(self.process.pid).num_threads())

    def half_written(self) -> int:
        """Return how many files lie half-written."""
        return sum(1 for _ in (self.data_dir / "incoming").rglob("*.part"))

    def spooled(self) -> int:
        """Return how many files are not in the index yet."""
        return sum(1 for _ in (self.data_dir / "incoming").rglob("*.dcm"))

    def kept(self) -> dict[str, Path]:
        """Return digest and file of every object that is in the index or put aside."""
        store = open_store(f"sqlite:///{self.data_dir / 'hybridmed.db'}", self.data_dir)
        try:
            with store.read() as connection:
                indexed = connection.execute(sa.select(instance.c.digest, instance.c.path)).all()
                put_aside = connection.scalars(sa.select(quarantine.c.path)).all()
        finally:
            store.close()
        kept = {path.rpartition("_")[2].removesuffix(".dcm"): path for path in put_aside}
        kept.update((row.digest, row.path) for row in indexed)
        return {digest: self.data_dir / path for digest, path in kept.items()}

    def unforeseen(self) -> list[str]:
        """Return the lines of the log that tell of an error that nobody foresaw."""
        lines = (self.data_dir / "log").read_text(errors="replace").splitlines()
        return [line for line in lines if any(each in line for each in _UNFORESEEN)]


@contextmanager
def running(home: Path, path: str) -> Iterator[Target]:
    """Run a receiver; on leaving, it has drained and ended in good order."""
    home.mkdir(parents=True)
    store = open_store(f"sqlite:///{home / 'hybridmed.db'}", home)
    schema.upgrade(store)
    with store.write() as connection:
        add_study(connection, COMPLETE_STUDY)
        add_series(connection, COMPLETE_STUDY, f"{COMPLETE_STUDY}.1")
    store.close()
    port = free_port()
    command = [sys.executable, "-m", "tests.fuzz.receiver", str(home), str(port), path]
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        wait_until(lambda: listens(port), _START_S, f"receiver, {path} path")
        yield Target(path, port, process, home)
        process.terminate()
        process.wait(_END_S)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
