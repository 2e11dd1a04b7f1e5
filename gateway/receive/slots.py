"""A limit of associations over all receiving processes of a host: a byte of a file for each, locked while it is open.

The kernel gives the lock back when its process ends, however it ends.
"""

from __future__ import annotations

import fcntl
import socket
import threading
from collections.abc import Hashable
from pathlib import Path

from gateway.spool import make_folder


class Slots:
    """The places for associations.

    Parameters
    ----------
    data_dir
        The data folder that the processes share.
    port
        That they listen on.
    count
        Associations at once, over all of them.
    """

    def __init__(self, data_dir: Path, port: int, count: int) -> None:
        folder = data_dir / "incoming"
        make_folder(folder)
        self._file = (folder / f".slots_{socket.gethostname()}_{port}").open("ab")
        self._count = count
        self._held: dict[Hashable, int] = {}
        self._lock = threading.Lock()

    def take(self, holder: Hashable) -> bool:
        """Take a place for an association; False where there is none."""
        with self._lock:
            if holder in self._held:
                return True
            ours = set(self._held.values())
            for place in range(self._count):
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
