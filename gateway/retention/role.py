"""Removes by itself what has had its time, in the role `dispatch`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

import structlog

from gateway.audit.acts import ourselves
from gateway.errors import DatabaseAwayError, FilesAwayError
from gateway.retention.purge import Purge
from gateway.services import Heartbeat

log = structlog.get_logger()

_LOOK_S = 1.0
_FILES_EVERY_S = 60.0
_ANEW_EVERY_S = 86400.0
"""How often what is kept is counted from the beginning."""


class Keeper:
    """Looks now and then; works off files that a killed purge left even where it removes nothing by itself.

    Parameters
    ----------
    purge
        What is removed.
    heartbeat
        Counts.
    every_s
        Between looks; None: nothing is removed by itself.
    now
        The clock.
    """

    name = "retention"

    def __init__(
        self,
        purge: Purge,
        heartbeat: Heartbeat,
        every_s: float | None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._purge = purge
        self._heartbeat = heartbeat
        self._every_s = every_s
        self._now = now

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set; the study that is being removed is finished. Nothing that may pass ends it."""
        look_at = files_at = anew_at = time.monotonic()
        while not stop.wait(_LOOK_S):
            try:
                if time.monotonic() >= files_at:
                    files_at = time.monotonic() + _FILES_EVERY_S
                    self._purge.remove_files(self._now())
                    self._heartbeat.recovered("retention")
                if self._every_s is not None and time.monotonic() >= look_at:
                    look_at = time.monotonic() + self._every_s
                    if is_anew := time.monotonic() >= anew_at:
                        anew_at = time.monotonic() + _ANEW_EVERY_S
                    self._purge.count(stop, anew=is_anew)
                    self.turn(stop)
            except DatabaseAwayError as error:
                log.warning("retention.away", part="database", reason=str(error))
            except FilesAwayError as error:
                log.warning("retention.away", part="files", reason=str(error))
                self._heartbeat.degraded("retention", str(error))
            except OSError as error:
                log.error("retention.disk", errno=error.errno)
                self._heartbeat.degraded("retention", f"errno {error.errno}")

    def turn(self, stop: threading.Event) -> int:
        """Remove what is due now; return how many studies went."""
        now = self._now()
        removed = 0
        for decision in self._purge.run(self._purge.plan(now), ourselves("dispatch", is_requestor=True), now):
            removed += 1
            self._heartbeat.counters.add("hybridmed_studies_removed_total")
            self._heartbeat.counters.add("hybridmed_removed_bytes_total", decision.size_bytes)
            if stop.is_set():
                break
        self._heartbeat.recovered("retention")
        return removed
