"""A study goes: its rows in one transaction, then its files, one by one. Each step can be repeated."""

from __future__ import annotations

import hashlib
import shutil
import threading
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

import sqlalchemy as sa
import structlog
from sqlalchemy.engine import Connection

from gateway.audit.acts import Moved, deleted
from gateway.audit.chain import ChainKey
from gateway.audit.event import Participant
from gateway.audit.lines import append
from gateway.config.retention import Retention
from gateway.retention.policy import Candidate, Decision, Room, decide
from gateway.store import Store
from gateway.store.retention import (
    forget_removals,
    list_candidates,
    remove_rows,
    take_removals,
)
from gateway.store.studies import lock_study
from gateway.store.tables import artefact, instance, study
from gateway.store.tally import count_on, forget, kept_bytes

log = structlog.get_logger()

_FILES_AT_ONCE = 100
_PAGE = 500
_REMEMBERED = timedelta(days=1)
_PAUSE_S = 0.1
"""Between two steps of counting: SQLite has one writer, and receivers are waiting."""


class Purge:
    """Removes what the rules want removed.

    Parameters
    ----------
    store
        Database and data folder.
    rules
        The settings `[retention]`.
    key
        Of the audit trail.
    """

    def __init__(self, store: Store, rules: Retention, key: ChainKey) -> None:
        self._store = store
        self._rules = rules
        self._key = key

    def count(self, stop: threading.Event, *, anew: bool = False) -> None:
        """Count on what is kept, where a rule asks for it, so that no plan has to add up all of it."""
        if self._rules.max_gib is None:
            return
        if anew:
            with self._store.write() as connection:
                forget(connection)
        has_more = True
        while has_more and not stop.is_set():
            with self._store.write() as connection:
                has_more = count_on(connection)
            if has_more:
                stop.wait(_PAUSE_S)

    def plan(self, now: datetime) -> list[Decision]:
        """Return what the rules want removed, the oldest first, with what keeps it all the same."""
        with self._store.read() as connection:
            used = 0 if self._rules.max_gib is None else kept_bytes(connection)
            room = Room(used, shutil.disk_usage(self._store.data_dir).free)
            return list(decide(self._candidates(connection), self._rules, room, now))

    def _candidates(self, connection: Connection) -> Iterator[Candidate]:
        """Yield all studies, the oldest first; read page by page, as far as anyone asks."""
        page: list[Candidate] = []
        while True:
            after = page[-1] if page else None
            held = self._rules.keep_unverified
            page = list_candidates(connection, keep_unverified=held, after=after, limit=_PAGE)
            yield from page
            if len(page) < _PAGE:
                return

    def run(self, decisions: Sequence[Decision], who: Participant, now: datetime) -> Iterator[Decision]:
        """Remove the studies that go, and yield each that is gone; one that got work meanwhile stays."""
        for decision in decisions:
            if decision.goes and self._remove(decision, who, now):
                self.remove_files(now)
                yield decision

    def remove_files(self, now: datetime) -> int:
        """Remove the files that are listed, those of an earlier run that was killed among them; return how many."""
        removed = 0
        while True:
            with self._store.write() as connection:
                paths = take_removals(connection, _FILES_AT_ONCE, now)
                for path in paths:
                    self._unlink(path)
                forget_removals(connection, now - _REMEMBERED)
            removed += len(paths)
            if len(paths) < _FILES_AT_ONCE:
                return removed

    def _remove(self, decision: Decision, who: Participant, now: datetime) -> bool:
        uid = decision.study_instance_uid
        with self._store.write() as connection:
            if not lock_study(connection, uid, skip_locked=True, is_whole=True):
                return False
            found = list_candidates(connection, keep_unverified=self._rules.keep_unverified, uids=[uid])
            is_as_planned = found and not found[0].blockers and found[0].last_received_at == decision.last_received_at
            if not is_as_planned:
                return False
            moved = _moved(connection, uid)
            packs = self._metadata_packs(connection, uid)
            paths = remove_rows(connection, uid, now, keep_reports=self._rules.keep_reports)
            append(connection, [deleted(who, moved, decision.reason)], self._key)
        for pack in packs:
            (self._store.data_dir / pack).unlink(
                missing_ok=True
            )  # a cache: what a kill leaves of it is never read again
        log.info("study.removed", study_instance_uid=uid, reason=decision.reason, files=len(paths))
        return True

    def _unlink(self, path: str) -> None:
        file = self._store.data_dir / path
        self._store.files.remove(path)
        if path.startswith("results/") and file.parent.is_dir() and not any(file.parent.iterdir()):
            file.parent.rmdir()

    def _metadata_packs(self, connection: Connection, uid: str) -> list[str]:
        """Return the cached metadata of images and results (`gateway.web.dicomweb.metadata`)."""
        of_study = (
            sa.select(table.c.series_instance_uid).where(table.c.study_instance_uid == uid)
            for table in (instance, artefact)
        )
        names = [
            hashlib.sha256(f"{uid} {series}".encode()).hexdigest() for series in connection.scalars(sa.union(*of_study))
        ]
        return [f"cache/metadata/{name[:2]}/{name}.pack" for name in names]


def _moved(connection: Connection, uid: str) -> Moved:
    """Return what is removed, for the audit trail: later nobody could look it up."""
    of_study = connection.execute(
        sa.select(study.c.patient_id, study.c.accession_number).where(study.c.study_instance_uid == uid)
    ).one()
    counts = (
        sa.select(instance.c.sop_class_uid, sa.func.count())
        .where(instance.c.study_instance_uid == uid)
        .group_by(instance.c.sop_class_uid)
    )
    classes = tuple((sop_class_uid, count) for sop_class_uid, count in connection.execute(counts))
    return Moved(uid, classes, of_study.patient_id, of_study.accession_number)
