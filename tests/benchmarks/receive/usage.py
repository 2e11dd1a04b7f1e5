"""CPU seconds and memory of a receiver's processes."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import psutil

_LOOK_S = 0.1
_SETTLE_LOOK_S = 0.4
_SETTLED_CPU_S = 0.04
_SETTLE_LIMIT_S = 120.0


class Usage:
    """What the processes of a receiver take while the context is open.

    Parameters
    ----------
    pid
        Its first process; children count too, also those that begin and end meanwhile.
    """

    def __init__(self, pid: int) -> None:
        self._root = psutil.Process(pid)
        self._peaks_kib: dict[int, int] = {}
        self._idle_kib: dict[int, int] = {}
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look_on, daemon=True)
        self._cpu_s = 0.0

    def __enter__(self) -> Usage:
        for process in self._tree():
            with contextlib.suppress(OSError):
                Path(f"/proc/{process.pid}/clear_refs").write_text("5")  # the highest resident memory counts from now
        self._idle_kib = dict(self._memory("VmRSS"))
        self._cpu_s = self._cpu()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()
        self._thread.join()

    @property
    def idle_mib(self) -> float:
        """Resident memory of all processes at the beginning."""
        return sum(self._idle_kib.values()) / 1024

    @property
    def grown_mib(self) -> float:
        """Highest resident memory of each process above what it took at the beginning, summed."""
        return sum(peak - self._idle_kib.get(pid, 0) for pid, peak in self._peaks_kib.items()) / 1024

    def settled_cpu_s(self) -> float:
        """Wait until the processes do no more, and return the CPU seconds since the beginning."""
        deadline = time.monotonic() + _SETTLE_LIMIT_S
        before = self._cpu()
        while time.monotonic() < deadline:
            time.sleep(_SETTLE_LOOK_S)
            now = self._cpu()
            if now - before < _SETTLED_CPU_S:
                break
            before = now
        time.sleep(1.1)  # dcmtk's storescp counts its ended children once a second
        return self._cpu() - self._cpu_s

    def _look_on(self) -> None:
        while True:
            is_last = self._is_over.wait(_LOOK_S)
            for pid, peak in self._memory("VmHWM"):
                self._peaks_kib[pid] = max(peak, self._peaks_kib.get(pid, 0))
            if is_last:
                return

    def _cpu(self) -> float:
        spent = 0.0
        for process in self._tree():
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                spent += times.user + times.system + times.children_user + times.children_system
        return spent

    def _memory(self, field: str) -> Iterator[tuple[int, int]]:
        for process in self._tree():
            with contextlib.suppress(OSError, StopIteration):
                lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
                yield process.pid, next(int(line.split()[1]) for line in lines if line.startswith(field))

    def _tree(self) -> list[psutil.Process]:
        return [self._root, *self._root.children(recursive=True)]
