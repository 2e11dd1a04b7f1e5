"""Waiting for somebody's commit: what a loop that polls the database does between two looks.

SQLite writes each commit to its write-ahead log, so a look at that file's time and size, which costs next to nothing,
tells of the commits of all processes; a moment before they can be read, for the log is brought to the disk first. So a
loop that was told looks once more before it rests. Elsewhere the loop looks again after its time.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path

from gateway.store.engine import Store

_LOOK_S = 0.02
_TOLD_S = 1.0
"""How often to look at a database whose commits are told."""


class Commits:
    """The commits that one loop has not seen yet.

    Parameters
    ----------
    store
        Whose commits.
    """

    def __init__(self, store: Store) -> None:
        url = store.engine.url
        is_file = url.get_backend_name() == "sqlite" and url.database not in (None, "", ":memory:")
        self._log = Path(f"{url.database}-wal") if is_file else None
        self._seen = self._state()
        self._was_told = True

    def idle_s(self, poll_s: float) -> float:
        """Return the time to the next look of a loop for which nothing is due, given the one that it polls at."""
        return poll_s if self._seen is None or self._was_told else max(poll_s, _TOLD_S)

    def wait(self, stop: threading.Event, timeout_s: float) -> None:
        """Wait until something was committed since the last wait ended, until `stop`, or for so long."""
        if self._log is None:
            stop.wait(timeout_s)
            return
        deadline = time.monotonic() + timeout_s
        while (state := self._state()) == self._seen:
            left_s = deadline - time.monotonic()
            if left_s <= 0 or stop.wait(min(_LOOK_S, left_s)):
                break
        self._was_told = state != self._seen
        self._seen = state

    def _state(self) -> tuple[int, int] | None:
        if self._log is None:
            return None
        try:
            facts = self._log.stat()
        except OSError:
            return None
        return facts.st_mtime_ns, facts.st_size
