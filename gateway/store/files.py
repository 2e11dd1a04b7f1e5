"""Stored instances and results: in the data folder, and in a bucket where there is more than one machine.

The data folder of a host is then its spool, which is durable, and a cache of the bucket, which is not. What is kept
lies in the bucket before any row names it.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

_KINDS = ("instances", "results")
_TRIM_S = 60.0
_RECENT_S = 600.0
"""A copy used so lately is never removed: somebody may be about to open it."""
_GIB = 1 << 30


class Bucket(Protocol):
    """What `gateway.store.bucket.Bucket` does."""

    def put(self, path: str, source: Path) -> None:
        """Put a file; FilesAwayError where it is not kept."""

    def size(self, path: str) -> int | None:
        """Return an object's size; None where there is none."""

    def fetch(self, path: str, target: Path) -> None:
        """Bring a file; FileNotFoundError where there is none."""

    def remove(self, path: str) -> None:
        """Remove an object; none is well too."""


class Files:
    """Files by their path relative to the data folder; safe to use from any thread.

    Parameters
    ----------
    data_dir
        The data folder of this host.
    bucket
        What all hosts share; None: the data folder is all there is.
    cache_gib
        Local copies to keep.
    """

    def __init__(self, data_dir: Path, bucket: Bucket | None = None, cache_gib: float = 0.0) -> None:
        self._data_dir = data_dir
        self._bucket = bucket
        self._cache_bytes = int(cache_gib * _GIB)
        self._trimmed_at = time.monotonic()
        self._lock = threading.Lock()

    def local(self, path: str) -> Path:
        """Return the file on this host's disk, brought from the bucket where it is not; FilesAwayError.

        A file that is nowhere has a path too: opening it tells.
        """
        file = self._data_dir / path
        if self._bucket is None:
            return file
        try:
            os.utime(file)  # used now
        except FileNotFoundError:
            with contextlib.suppress(FileNotFoundError):
                self._bucket.fetch(path, file)
            self._trim()
        return file

    def bring(self, paths: Iterable[str]) -> None:
        """See that files are on this host's disk."""
        for path in paths:
            self.local(path)

    def keep(self, paths: Iterable[str]) -> None:
        """Return once files of this host are kept for all; FilesAwayError otherwise."""
        if self._bucket is None:
            return
        for path in paths:
            self._bucket.put(path, self._data_dir / path)
        self._trim()

    def size(self, path: str) -> int | None:
        """Return the size of a file that is kept; None where it is not."""
        try:
            return (self._data_dir / path).stat().st_size
        except FileNotFoundError:
            return None if self._bucket is None else self._bucket.size(path)

    def remove(self, path: str) -> None:
        """Remove a file, everywhere."""
        (self._data_dir / path).unlink(missing_ok=True)
        if self._bucket is not None:
            self._bucket.remove(path)

    def _trim(self) -> None:
        """Remove the copies that were not used for longest, where there are more than are to be kept."""
        with self._lock:
            if time.monotonic() - self._trimmed_at < _TRIM_S:
                return
            self._trimmed_at = time.monotonic()
        self.trim()

    def trim(self, recent_s: float = _RECENT_S) -> int:
        """Remove local copies until no more than `cache_gib` are left; return how many went.

        Each is in the bucket, or is seen to be before it goes.
        """
        if self._bucket is None:
            return 0
        found = list(self._copies())
        excess = sum(facts.st_size for _, facts in found) - self._cache_bytes
        removed = 0
        for file, facts in sorted(found, key=lambda each: each[1].st_mtime):
            if excess <= 0 or time.time() - facts.st_mtime < recent_s:
                break
            if self._bucket.size(file.relative_to(self._data_dir).as_posix()) != facts.st_size:
                continue
            file.unlink(missing_ok=True)
            excess -= facts.st_size
            removed += 1
        return removed

    def _copies(self) -> Iterator[tuple[Path, os.stat_result]]:
        """Yield the files that lie here; others may remove some meanwhile."""
        for kind in _KINDS:
            for folder, _, names in os.walk(self._data_dir / kind):
                for name in names:
                    if "." in name[1:] and not name.startswith("."):
                        with contextlib.suppress(FileNotFoundError):
                            yield Path(folder) / name, (Path(folder) / name).stat()
