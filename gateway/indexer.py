"""Stored instances -> rows, in batches; what a restart finds -> rows.

The thread that does it outlives an absent database: files wait in `incoming/`, and receiving goes on. What cannot be
indexed for good goes to `quarantine/` with a row that says why. Each step can be repeated: a kill between any two of
them loses nothing and doubles nothing.

```
link incoming/… -> instances/ab/<digest>.dcm    durable under both names
one transaction                                 rows of the whole batch
unlink incoming/…
```
"""

from __future__ import annotations

import contextlib
import errno
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import assert_never

import sqlalchemy as sa
import structlog

from gateway.errors import CannotUnderstandError, FilesAwayError, ServiceAwayError
from gateway.header import InstanceHeader, read_header
from gateway.rejection import KEY_OBJECT_SELECTION, read_note
from gateway.services import Heartbeat
from gateway.spool import Orphan, Spooled, finished_files, make_folder, reread, sync_folder, sync_folders
from gateway.store import Store
from gateway.store.instances import (
    BatchOutcome,
    ClosedAssociation,
    OpenedAssociation,
    ReceivedInstance,
    close_associations,
    index_batch,
    lose_associations,
    open_associations,
)
from gateway.store.quarantine import QuarantinedFile, add_quarantined
from gateway.store.rejections import Rejection, reject
from gateway.store.retention import keep_paths

log = structlog.get_logger()

BATCH = 200
"""Most items of one transaction."""
_FIRST_DELAY_S = 0.5
_LONGEST_DELAY_S = 10.0
_WAKE_S = 0.5
_MOST_WAITING = 20_000
"""Items in memory, some 2 KiB each: more come only while the database is away, and those stay on disk alone."""
_LINGER_S = 0.05
_LONGEST_LINGER_S = 0.3
"""How long a batch that is not full waits for the next item, and for all of them."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """An instance on disk and its header."""

    spooled: Spooled
    header: InstanceHeader


@dataclass(frozen=True, slots=True)
class Unlisted:
    """Files of our own spool that came while too much waited: they are found there when it is their turn."""

    folder: Path


_Plain = OpenedAssociation | Arrival | ClosedAssociation
_Stretch = Orphan | Unlisted | Sequence[_Plain]
Item = _Plain | Orphan | Unlisted


class Indexer:
    """Takes what the receiver reports, in order; a context manager around its thread, which drains at the end.

    Parameters
    ----------
    store
        Database and data folder.
    heartbeat
        Hears when the database or the disk is away; its counters are counted up.
    """

    def __init__(self, store: Store, heartbeat: Heartbeat) -> None:
        self._store = store
        self._heartbeat = heartbeat
        self._counters = heartbeat.counters
        self._queue: queue.SimpleQueue[Item] = queue.SimpleQueue()
        self._urgent = threading.Event()
        self._has_unlisted = False
        self._ending = threading.Event()
        self.is_drained = False
        """True once the end came with nothing left to do; else a restart finds what is left."""
        self._thread = threading.Thread(target=self._run, name="indexer", daemon=True)

    def __enter__(self) -> Indexer:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._ending.set()
        self._urgent.set()
        self._thread.join()

    @property
    def is_alive(self) -> bool:
        """Whether what is submitted is looked at."""
        return self._thread.is_alive()

    def submit(self, item: Item) -> None:
        """Hand over something to be indexed; returns at once."""
        if isinstance(item, Arrival) and self._queue.qsize() >= _MOST_WAITING:
            if self._has_unlisted:  # in which this one will be found
                return
            self._has_unlisted = True
            item = Unlisted(item.spooled.path.parent)
        self._queue.put(item)
        if not isinstance(item, OpenedAssociation | Arrival):
            self._urgent.set()

    def _run(self) -> None:
        while batch := self._next_batch():
            for stretch in _stretches(batch):
                self._counters.set("hybridmed_index_waiting", self._queue.qsize() + len(batch))
                if not self._until_done(partial(self._index, stretch)):
                    log.warning("index.left", items=self._queue.qsize() + len(batch))
                    return
        self.is_drained = True

    def _next_batch(self) -> list[Item]:
        """Return what waits, at most `BATCH`; empty once the end has come and nothing waits."""
        batch: list[Item] = []
        while not batch:
            is_last_look = self._ending.is_set()
            try:
                batch.append(self._queue.get(timeout=0.0 if is_last_look else _WAKE_S))
            except queue.Empty:
                self._counters.set("hybridmed_index_waiting", 0)
                if is_last_look:
                    return []
        # A transaction for each instance costs more than the instance: wait a little for those behind the first, asleep
        # all the while, since a thread that wakes for each of them takes the interpreter from those that receive. The
        # end of an association is news at once.
        due_at = time.monotonic() + _LONGEST_LINGER_S
        self._take(batch)
        is_followed = True
        while is_followed and self._may_linger(batch) and (left_s := due_at - time.monotonic()) > 0:
            self._urgent.wait(min(_LINGER_S, left_s))
            is_followed = self._take(batch)
        return batch

    def _take(self, batch: list[Item]) -> bool:
        """Add what waits, up to `BATCH`; whether there was something."""
        self._urgent.clear()
        count = len(batch)
        with contextlib.suppress(queue.Empty):
            while len(batch) < BATCH:
                batch.append(self._queue.get_nowait())
        return len(batch) > count

    def _may_linger(self, batch: Sequence[Item]) -> bool:
        is_full = len(batch) == BATCH or self._ending.is_set()
        return not is_full and all(isinstance(item, OpenedAssociation | Arrival) for item in batch)

    def _until_done(self, action: Callable[[], None]) -> bool:
        """Repeat until it goes through; False where the end came first: the files stay and a restart finds them."""
        delay_s = _FIRST_DELAY_S
        while True:
            try:
                action()
            except (ServiceAwayError, sa.exc.SQLAlchemyError, OSError) as error:
                part, reason = _trouble(error)
                self._heartbeat.degraded(part, reason)
                log.warning("index.waits", part=part, reason=reason, retry_s=delay_s)
                if self._ending.wait(delay_s):
                    return False
                delay_s = min(2 * delay_s, _LONGEST_DELAY_S)
            else:
                self._heartbeat.recovered("database")
                self._heartbeat.recovered("disk")
                self._heartbeat.recovered("files")
                return True

    def _index(self, stretch: _Stretch) -> None:
        match stretch:
            case Orphan():
                self._adopt(stretch)
            case Unlisted():
                self._has_unlisted = False  # before the look: what comes from now on is put behind it
                self._index_files(finished_files(stretch.folder))
            case _:
                self._index_plain(stretch)

    def _index_plain(self, batch: Sequence[_Plain]) -> None:
        opened: list[OpenedAssociation] = []
        arrivals: list[Arrival] = []
        closed: list[ClosedAssociation] = []
        for item in batch:
            match item:
                case OpenedAssociation():
                    opened.append(item)
                case Arrival():
                    arrivals.append(item)
                case ClosedAssociation():
                    closed.append(item)
                case _:
                    assert_never(item)
        if opened:
            with self._store.write() as connection:
                open_associations(connection, opened)
        self._index_arrivals(arrivals)
        if closed:
            with self._store.write() as connection:
                close_associations(connection, closed)

    def _index_arrivals(self, arrivals: Sequence[Arrival]) -> None:
        """Index what is still in `incoming/`: a repeated try finds some of it done."""
        waiting = [arrival for arrival in arrivals if arrival.spooled.path.exists()]
        if not waiting:
            return
        received = [self._place(arrival) for arrival in waiting]
        sync_folders({(self._store.data_dir / one.path).parent for one in received})
        self._store.files.keep([one.path for one in received])
        decisions = self._decisions(received)
        try:
            with self._store.write() as connection:
                outcome = index_batch(connection, received, datetime.now(UTC))
                again = keep_paths(connection, [one.path for one in received])
                for decision in decisions:
                    reject(connection, decision, datetime.now(UTC))
        except (sa.exc.StatementError, UnicodeError, OverflowError) as error:
            # The database, or its driver, will not have it. Alone, each instance shows whether it is the one.
            if len(waiting) == 1:
                refusal = error.orig if isinstance(error, sa.exc.StatementError) else error
                self._quarantine(waiting[0].spooled, f"the database refused it: {type(refusal).__name__}")
            else:
                for arrival in waiting:
                    self._index_arrivals([arrival])
            return
        if again:
            self._place_again({one.path: arrival for arrival, one in zip(waiting, received, strict=True)}, again)
        for arrival in waiting:
            arrival.spooled.path.unlink(missing_ok=True)
        self._count(outcome)

    def _decisions(self, received: Sequence[ReceivedInstance]) -> list[Rejection]:
        """Return what the rejection notes among the instances say; it holds from the moment they are indexed."""
        decisions = []
        for one in received:
            if one.header.sop_class_uid != KEY_OBJECT_SELECTION:
                continue
            if (note := read_note(self._store.data_dir / one.path)) is not None:
                decisions.append(Rejection(note[0], note[1], one.header.sop_instance_uid, one.calling_ae))
                log.info("note.received", calling_ae=one.calling_ae, code=note[0], instances=len(note[1]))
        return decisions

    def _place(self, arrival: Arrival) -> ReceivedInstance:
        """Give the file its final name besides the one it has."""
        spooled = arrival.spooled
        path = f"instances/{spooled.digest[:2]}/{spooled.digest}.dcm"
        _link(spooled.path, self._store.data_dir / path)
        return ReceivedInstance(
            header=arrival.header,
            digest=spooled.digest,
            path=path,
            size_bytes=spooled.size_bytes,
            association_id=spooled.association_id,
            calling_ae=spooled.calling_ae,
            received_at=spooled.received_at,
        )

    def _place_again(self, arrivals: Mapping[str, Arrival], paths: Sequence[str]) -> None:
        """Give files their names back that retention was removing: the same bytes came before and had had their time.

        Between `_place` and the commit they may have gone; since the commit nobody removes them.
        """
        for path in paths:
            target = self._store.data_dir / path
            _link(arrivals[path].spooled.path, target)
            sync_folder(target.parent)
        self._store.files.keep(paths)

    def _adopt(self, orphan: Orphan) -> None:
        """Index what a process that is gone left, then close its associations."""
        files = orphan.files()
        self._index_files(files)
        with self._store.write() as connection:
            lost = lose_associations(connection, orphan.service_id, datetime.now(UTC))
        orphan.release()
        log.info("index.adopted", service_id=orphan.service_id, instances=len(files), associations_lost=lost)

    def _index_files(self, files: Sequence[Path]) -> None:
        for start in range(0, len(files), BATCH):
            arrivals = [self._reread(path) for path in files[start : start + BATCH]]
            self._index_arrivals([arrival for arrival in arrivals if arrival is not None])

    def _reread(self, path: Path) -> Arrival | None:
        try:
            spooled = reread(path)
            return Arrival(spooled, read_header(path))
        except (CannotUnderstandError, OSError) as error:
            if isinstance(error, OSError) and error.errno != errno.EIO:
                raise  # may pass; a bad sector does not, and must not hold up everything behind it
            reason = error.comment if isinstance(error, CannotUnderstandError) else "the disk cannot read it"
            facts = path.stat()
            when = datetime.fromtimestamp(facts.st_mtime, UTC)
            unread = Spooled(path, "", facts.st_size, path.stem.partition("_")[0], "", when)
            self._quarantine(unread, reason)
            return None

    def _quarantine(self, spooled: Spooled, reason: str) -> None:
        """Put a file aside, listed with the reason."""
        path = f"quarantine/{spooled.path.name}"
        _link(spooled.path, self._store.data_dir / path)
        sync_folder(self._store.data_dir / "quarantine")
        row = QuarantinedFile(path, spooled.size_bytes, reason, spooled.calling_ae, datetime.now(UTC))
        with self._store.write() as connection:
            add_quarantined(connection, row)
        spooled.path.unlink(missing_ok=True)
        self._counters.add("hybridmed_instances_quarantined_total")
        log.error("instance.quarantined", path=path, reason=reason)

    def _count(self, outcome: BatchOutcome) -> None:
        self._counters.add("hybridmed_instances_indexed_total", outcome.added)
        self._counters.add("hybridmed_instances_changed_total", outcome.changed)
        self._counters.add("hybridmed_instances_repeated_total", outcome.repeated)
        self._counters.add("hybridmed_studies_reopened_total", outcome.reopened)


def _stretches(batch: Sequence[Item]) -> Sequence[_Stretch]:
    """Split a batch at the folders: each is a step of its own, done before what came after it."""
    stretches: list[Orphan | Unlisted | list[_Plain]] = []
    for item in batch:
        if isinstance(item, Orphan | Unlisted):
            stretches.append(item)
        elif stretches and isinstance(stretches[-1], list):
            stretches[-1].append(item)
        else:
            stretches.append([item])
    return stretches


def _trouble(error: ServiceAwayError | sa.exc.SQLAlchemyError | OSError) -> tuple[str, str]:
    """Return the part that is in trouble, and why; an error of the database may quote values, so only its class."""
    if isinstance(error, OSError):
        return "disk", f"indexing: errno {error.errno}"
    if isinstance(error, FilesAwayError):
        return "files", str(error)
    return "database", str(error) if isinstance(error, ServiceAwayError) else type(error).__name__


def _link(source: Path, target: Path) -> None:
    """Give a file a second name; one that stands already is the same data set (its name is the digest)."""
    with contextlib.suppress(FileExistsError):
        try:
            target.hardlink_to(source)
        except FileNotFoundError:
            make_folder(target.parent)
            target.hardlink_to(source)
