"""Limits over all receiving processes of a host, kept in files of the data folder.

Of associations: a byte for each, locked while it is open, and never written; the kernel gives the lock back when its
process ends, however it ends. Of instances per second: the time of the next turn, changed under a lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import socket
import struct
import threading
import time
from collections.abc import Hashable
from pathlib import Path
from typing import BinaryIO

from gateway.admission import next_turn
from gateway.spool import make_folder

_GRACE_S = 0.2
"""How long a place may take to come free: a sender that was just told that its association is released may come back
before our own books are closed."""
_LOOK_S = 0.01
_PLACES_BITS = 30
_TIME = struct.Struct("<d")


class Slots:
    """The places for associations.

    Parameters
    ----------
    data_dir
        The data folder that the processes share.
    port
        That they listen on.
    count
        Associations at once, over all of them; with addresses, from each.
    title
        The AE title whose places they are; '': everybody's.
    """

    def __init__(self, data_dir: Path, port: int, count: int, title: str = "") -> None:
        self._file = _opened(_shared_path(data_dir, "slots", port, title))
        self._count = count
        self._held: dict[Hashable, int] = {}
        self._lock = threading.Lock()

    def take(self, holder: Hashable, address: str = "") -> bool:
        """Take a place for an association; False where there is none, and none comes free at once.

        Each address that is given has places of its own.
        """
        deadline = time.monotonic() + _GRACE_S
        first = _first_place(address)
        while not self._try_take(holder, first):
            if time.monotonic() >= deadline:
                return False
            time.sleep(_LOOK_S)
        return True

    def _try_take(self, holder: Hashable, first: int) -> bool:
        with self._lock:
            if holder in self._held:
                return True
            ours = set(self._held.values())
            for place in range(first, first + self._count):
                if place not in ours and self._try_lock(place):
                    self._held[holder] = place
                    return True
            return False

    def give_back(self, holder: Hashable) -> None:
        """Give an association's place back, if it has one."""
        with self._lock:
            place = self._held.pop(holder, None)
            if place is not None:
                fcntl.lockf(self._file, fcntl.LOCK_UN, 1, place)

    def close(self) -> None:
        """Give all places back."""
        self._file.close()

    def _try_lock(self, place: int) -> bool:
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
        except OSError:
            return False
        return True


class SharedTurns:
    """Turns of the processes that listen on a port of this host (`gateway.admission.Turns`).

    Parameters
    ----------
    data_dir
        The data folder that the processes share.
    port
        That they listen on.
    title
        The AE title whose turns they are.
    """

    def __init__(self, data_dir: Path, port: int, title: str) -> None:
        self._path = _shared_path(data_dir, "turns", port, title)
        self._lock = threading.Lock()  # the file's lock is the process's: it does not keep threads apart

    def take(self, now: float, gap_s: float) -> float:
        """Take the next turn; the monotonic clock is the same for all processes of a host.

        On a disk that fails there is no waiting: instances are refused by whoever writes them, with the reason.
        """
        with self._lock, contextlib.suppress(OSError), _opened(self._path) as file:
            fcntl.lockf(file, fcntl.LOCK_EX)  # until the file is closed
            kept = os.pread(file.fileno(), _TIME.size, 0)
            free_at = _TIME.unpack(kept)[0] if len(kept) == _TIME.size else now
            turn = next_turn(free_at, now, gap_s)
            os.pwrite(file.fileno(), _TIME.pack(turn + gap_s), 0)
            return turn
        return now


def _first_place(address: str) -> int:
    """Return where an address's places begin: far from those of others, and within what a lock reaches (63 bits)."""
    if not address:
        return 0
    return (1 + int.from_bytes(hashlib.sha256(address.encode()).digest()[:4])) << _PLACES_BITS


def _shared_path(data_dir: Path, kind: str, port: int, title: str) -> Path:
    folder = data_dir / "incoming"
    make_folder(folder)
    return folder / (f".{kind}_{socket.gethostname()}_{port}" + (f"_{title.encode().hex()}" if title else ""))


def _opened(path: Path) -> BinaryIO:
    """Open a file for reading and writing; it is made where it is not there."""
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b", buffering=0)
