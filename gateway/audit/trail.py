"""The trail of one process: events are journalled at once, and a thread brings them to the database."""

from __future__ import annotations

import threading
import time
from collections import deque

import sqlalchemy as sa
import structlog

from gateway.audit.chain import ChainKey
from gateway.audit.event import AuditEvent
from gateway.audit.journal import Journal, abandoned
from gateway.audit.lines import append
from gateway.errors import ServiceAwayError
from gateway.services import Counters
from gateway.store import Store

log = structlog.get_logger()

_GATHER_S = 0.3
_AWAY_S = 2.0
_ADOPT_EVERY_S = 30.0
_BATCH = 200
_MEMORY = 1000
"""Events held in memory where the disk takes none."""

_current: list[Trail] = []


def record(event: AuditEvent) -> None:
    """Record an event in the trail of this process; where none is open, as in a part tested alone, it goes nowhere."""
    if _current:
        _current[-1].record(event)


class Trail:
    """Takes events from any thread; a context manager around a role's run, which makes it the process's own.

    Parameters
    ----------
    store
        Database, and the data folder where the journal lies.
    key
        Of the hash chain.
    counters
        Count events and what was lost.
    """

    def __init__(self, store: Store, key: ChainKey, counters: Counters) -> None:
        self._store = store
        self._key = key
        self._counters = counters
        self._unwritten: deque[AuditEvent] = deque(maxlen=_MEMORY)
        self._wake = threading.Event()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
        self._journal: Journal | None = None

    def __enter__(self) -> Trail:
        self._journal = Journal.create(self._store.data_dir)
        self._thread.start()
        _current.append(self)
        return self

    def __exit__(self, *_exception: object) -> None:
        _current.remove(self)
        self._ending.set()
        self._wake.set()
        self._thread.join()
        if self._journal is not None:
            if self._journal.waiting_bytes == 0:
                self._journal.remove()
            self._journal.close()

    def record(self, event: AuditEvent) -> None:
        """Take an event: in the journal when this returns, in the database soon after. Never raises."""
        self._counters.add(f'hybridmed_audit_events_total{{kind="{event.kind}"}}')
        try:
            is_kept = self._journal is not None and self._journal.write(event)
        except OSError as error:
            log.error("audit.unwritten", errno=error.errno)
            is_kept = len(self._unwritten) < _MEMORY
            self._unwritten.append(event)
        if not is_kept:
            self._counters.add("hybridmed_audit_events_lost_total")
            log.error("audit.lost", kind=event.kind)
        self._wake.set()

    def _run(self) -> None:
        adopt_at = 0.0
        while not self._ending.is_set():
            is_shipped = self._ship_all()
            if is_shipped and time.monotonic() >= adopt_at:
                self._adopt()
                adopt_at = time.monotonic() + _ADOPT_EVERY_S
            if is_shipped:
                self._wake.wait(_ADOPT_EVERY_S)
                self._wake.clear()
            self._ending.wait(_GATHER_S if is_shipped else _AWAY_S)  # what comes together is chained together
        self._ship_all()

    def _ship_all(self) -> bool:
        """Bring what waits to the database; False where that is away."""
        if self._journal is None:
            return True
        try:
            while self._unwritten:
                with self._store.write() as connection:
                    append(connection, [self._unwritten[0]], self._key)
                self._unwritten.popleft()
            self._ship(self._journal)
        except (ServiceAwayError, sa.exc.SQLAlchemyError, OSError) as error:
            log.warning("audit.waits", error=type(error).__name__)
            self._sync()
            return False
        return True

    def _ship(self, journal: Journal) -> None:
        while journal.waiting_bytes:
            events, end, has_line = journal.read()
            if not has_line:
                return  # half a line: it is being written, or a power cut left it so
            for start in range(0, len(events), _BATCH):
                with self._store.write() as connection:
                    append(connection, events[start : start + _BATCH], self._key)
            journal.shipped(end)

    def _sync(self) -> None:
        try:
            if self._journal is not None:
                self._journal.sync()
        except OSError as error:
            log.error("audit.unsynced", errno=error.errno)

    def _adopt(self) -> None:
        """Bring what processes that are gone left behind."""
        try:
            for journal in abandoned(self._store.data_dir):
                try:
                    self._ship(journal)
                    journal.remove()
                finally:
                    journal.close()
        except (ServiceAwayError, sa.exc.SQLAlchemyError, OSError) as error:
            log.warning("audit.waits", error=type(error).__name__)
