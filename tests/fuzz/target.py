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
from tests.services.process import free_port, listens, wait_until

_START_S = 60
_END_S = 60
_MIB = 1 << 20


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

    def kept(self) -> tuple[int, int]:
        """Return how many objects are in the index or put aside, and how many files lie half-written."""
        store = open_store(f"sqlite:///{self.data_dir / 'hybridmed.db'}", self.data_dir)
        try:
            with store.read() as connection:
                indexed = connection.scalar(sa.select(sa.func.count()).select_from(instance)) or 0
                put_aside = connection.scalar(sa.select(sa.func.count()).select_from(quarantine)) or 0
        finally:
            store.close()
        half_written = sum(1 for _ in (self.data_dir / "incoming").rglob("*.part"))
        return indexed + put_aside, half_written


@contextmanager
def running(home: Path, path: str) -> Iterator[Target]:
    """Run a receiver; on leaving, it has drained and ended in good order."""
    home.mkdir(parents=True)
    store = open_store(f"sqlite:///{home / 'hybridmed.db'}", home)
    schema.upgrade(store)
    store.close()
    port = free_port()
    command = [sys.executable, "-m", "tests.receiving_process", str(home), str(port), path]
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
