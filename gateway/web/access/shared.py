"""Token buckets over all web processes of a host, in memory that their supervisor made for them.

The table has sets of eight places. A name belongs to one set, by a digest under a key that only these processes know,
so that nobody chooses whose neighbour he is. Where a set is full, the bucket used longest ago goes, as in `limits`.
"""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

_KEY_BYTES: Final = 16
_PLACE: Final = struct.Struct("<16sdd")
"""Digest of the name, requests in the bucket, and when that was, in seconds of the monotonic clock of the host."""
_WAYS: Final = 8
_SETS: Final = 2048
_TABLE_BYTES: Final = _SETS * _WAYS * _PLACE.size
TABLES: Final = ("caller", "address", "failure")
MEMORY_BYTES: Final = _KEY_BYTES + len(TABLES) * _TABLE_BYTES


class SharedBuckets:
    """Buckets by name, as `limits.Buckets`; for one thread of each process.

    Parameters
    ----------
    memory
        Descriptor of `MEMORY_BYTES` bytes that begin with a random key.
    table
        Which of `TABLES`.
    per_s
        Refilled so fast.
    burst
        Size.
    clock
        Monotonic, the same for all processes, in seconds.
    """

    def __init__(
        self, memory: int, table: str, per_s: float, burst: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._memory = memory
        self._map = mmap.mmap(memory, MEMORY_BYTES)
        self._key = self._map[:_KEY_BYTES]
        self._start = _KEY_BYTES + TABLES.index(table) * _TABLE_BYTES
        self._per_s = per_s
        self._burst = max(burst, 1.0)
        self._clock = clock

    def take(self, name: str) -> float:
        """Take one request; return 0, or the seconds after which there is one to take."""
        digest, start = self._place_of(name)
        with self._locked(start):
            at, level, now = self._find(digest, start)
            is_refused = level < 1.0
            _PLACE.pack_into(self._map, at, digest, level if is_refused else level - 1.0, now)
        return (1.0 - level) / self._per_s if is_refused else 0.0

    def wait_s(self, name: str) -> float:
        """Return the seconds after which there is a request to take, 0 for now; nothing is taken."""
        digest, start = self._place_of(name)
        with self._locked(start):
            _, level, _ = self._find(digest, start)
        return 0.0 if level >= 1.0 else (1.0 - level) / self._per_s

    def _place_of(self, name: str) -> tuple[bytes, int]:
        digest = hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=16, key=self._key).digest()
        return digest, self._start + int.from_bytes(digest[:4], "little") % _SETS * _WAYS * _PLACE.size

    @contextmanager
    def _locked(self, start: int) -> Iterator[None]:
        """Keep the other processes out of a set; the kernel gives a dead one's lock back."""
        fcntl.lockf(self._memory, fcntl.LOCK_EX, 1, start)
        try:
            yield
        finally:
            fcntl.lockf(self._memory, fcntl.LOCK_UN, 1, start)

    def _find(self, digest: bytes, start: int) -> tuple[int, float, float]:
        """Return the place of a bucket, its level, and the time; for a new one the place used longest ago."""
        now = self._clock()
        places = list(_PLACE.iter_unpack(self._map[start : start + _WAYS * _PLACE.size]))
        for number, (known, level, at) in enumerate(places):
            if known == digest:
                return start + number * _PLACE.size, min(self._burst, level + max(0.0, now - at) * self._per_s), now
        oldest = min(range(_WAYS), key=lambda number: places[number][2])
        return start + oldest * _PLACE.size, self._burst, now
