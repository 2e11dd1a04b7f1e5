"""Events on their way to the database: a file for each process, which outlives its kill.

A write reaches the kernel before `write` returns: a killed process loses nothing. Who takes over a journal holds its
lock, as with the spool.
"""

from __future__ import annotations

import fcntl
import os
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import structlog

from gateway.audit.event import AuditEvent, decode, encode
from gateway.spool import make_folder

log = structlog.get_logger()

FOLDER = "audit"
_LARGEST = 1 << 29
"""Bytes of a journal while the database is away; further events are lost, and counted."""
_CHUNK = 1 << 20


class Journal:
    """The journal of one process; opened by `create` or taken over by `abandoned`.

    Parameters
    ----------
    path
        Where it lies.
    file
        Open for appending, locked by us.
    """

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path = path
        self._file = file
        self._lock = threading.Lock()
        self._shipped = 0
        self._size = os.fstat(file.fileno()).st_size

    @classmethod
    def create(cls, data_dir: Path) -> Journal:
        """Make a new one, seen by others only once its lock is held."""
        folder = data_dir / FOLDER
        make_folder(folder)
        path = folder / f"{uuid.uuid4()}.journal"
        making = path.with_name(f".{path.name}")
        file = _locked(making)
        if file is None:
            raise OSError("a journal of ours is locked by somebody else")
        making.rename(path)
        return cls(path, file)

    @property
    def waiting_bytes(self) -> int:
        """What has not reached the database."""
        return self._size - self._shipped

    def write(self, event: AuditEvent) -> bool:
        """Add an event; False where the journal is full. OSError where the disk will not have it."""
        line = encode(event).encode() + b"\n"
        with self._lock:
            if self._size + len(line) > _LARGEST:
                return False
            done = 0
            try:
                while done < len(line):
                    done += os.write(self._file.fileno(), line[done:])
            except OSError:
                os.ftruncate(self._file.fileno(), self._size)  # no half line before the next one
                raise
            self._size += len(line)
        return True

    def read(self) -> tuple[list[AuditEvent], int, bool]:
        """Return the events that come next, where they end, and whether there was a line at all.

        What is broken is left out and logged.
        """
        data = os.pread(self._file.fileno(), _CHUNK, self._shipped)
        end = data.rfind(b"\n") + 1
        events = []
        for line in data[:end].splitlines():
            try:
                events.append(decode(line))
            except ValueError:
                log.error("audit.line_broken", bytes=len(line))
        return events, self._shipped + end, end > 0

    def shipped(self, end: int) -> None:
        """Note that the events up to there are in the database; the file begins anew once all are."""
        with self._lock:
            self._shipped = end
            if self._shipped == self._size:
                os.ftruncate(self._file.fileno(), 0)
                self._shipped = self._size = 0

    def sync(self) -> None:
        """Let what is written outlive a power cut."""
        os.fdatasync(self._file.fileno())

    def remove(self) -> None:
        """Remove the file: all of it is in the database, but for a last line that a power cut left broken."""
        if self.waiting_bytes:
            log.error("audit.line_broken", bytes=self.waiting_bytes)
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Give it back; what waits in it is for another process."""
        self._file.close()


def abandoned(data_dir: Path) -> Iterator[Journal]:
    """Yield the journals whose process is gone, locked by us."""
    for path in sorted((data_dir / FOLDER).glob("[!.]*.journal")):
        file = _locked(path)
        if file is None:
            continue
        if path.exists():
            yield Journal(path, file)
        else:
            file.close()


def _locked(path: Path) -> BinaryIO | None:
    """Open and lock a file; None where somebody holds it, or it has just gone."""
    is_making = path.name.startswith(".")
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | (os.O_CREAT if is_making else 0), 0o600)
    except FileNotFoundError:
        return None
    file = os.fdopen(descriptor, "r+b", buffering=0)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    return file
