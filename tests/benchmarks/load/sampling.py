"""Memory, threads and descriptors of processes, each second."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import psutil

_MIB = 1 << 20


@dataclass(frozen=True)
class Sample:
    """All processes together, at one moment."""

    at_s: float
    rss_mib: float
    threads: int
    descriptors: int
    successes: int
    """Of the senders, so far."""


class Sampler(threading.Thread):
    """Takes a sample each second until told to stop.

    Parameters
    ----------
    pids
        Of the processes.
    successes
        Gives the number of successes so far.
    """

    def __init__(self, pids: Sequence[int], successes: Callable[[], int]) -> None:
        super().__init__(name="sampler", daemon=True)
        self.samples: list[Sample] = []
        self.processes = [psutil.Process(pid) for pid in pids]
        self._successes = successes
        self._ending = threading.Event()
        self._began = time.monotonic()

    def run(self) -> None:
        """Sample."""
        while not self._ending.wait(1.0):
            self.take()

    def take(self) -> Sample:
        """Take a sample now."""
        rss = threads = descriptors = 0
        for process in self.processes:
            with contextlib.suppress(psutil.NoSuchProcess), process.oneshot():
                rss += process.memory_info().rss
                threads += process.num_threads()
                descriptors += process.num_fds()
        at_s = round(time.monotonic() - self._began, 1)
        sample = Sample(at_s, round(rss / _MIB, 1), threads, descriptors, self._successes())
        self.samples.append(sample)
        return sample

    def stop(self) -> None:
        """End."""
        self._ending.set()
        self.join()
