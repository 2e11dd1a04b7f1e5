"""Associations, instances, series and studies as they arrive."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from gateway.header import InstanceHeader
from gateway.person_name import folded
from gateway.store.engine import insert_ignore, upsert_sums
from gateway.store.tables import artefact, association, association_content, instance, series, study

Outcome = Literal["released", "aborted", "lost"]
_RECEIVING = "receiving"


@dataclass(frozen=True, slots=True)
class ReceivedInstance:
    """An instance whose file lies at its final place."""

    header: InstanceHeader
    digest: str
    path: str
    """Relative to the data folder."""
    size_bytes: int
    association_id: str
    calling_ae: str
    received_at: datetime


@dataclass(frozen=True, slots=True)
class OpenedAssociation:
    """An association that carries instances."""

    id: str
    service_id: str
    calling_ae: str
    called_ae: str
    opened_at: datetime


@dataclass(frozen=True, slots=True)
class ClosedAssociation:
    """The end of an association."""

    id: str
    outcome: Outcome
    closed_at: datetime


@dataclass(frozen=True, slots=True)
class BatchOutcome:
    """What a batch changed."""

    added: int = 0
    """Instances with a SOP Instance UID not known before."""
    changed: int = 0
    """Known SOP Instance UIDs that came with other bytes."""
    repeated: int = 0
    """The same bytes once more."""
    reopened: int = 0
    """Complete studies that got a new revision."""


def open_associations(connection: Connection, opened: Iterable[OpenedAssociation]) -> None:
    """Write the rows of associations that carry instances; those that stand are left as they are."""
    insert_ignore(connection, association, [asdict(one) for one in opened], keys=["id"])


def close_associations(connection: Connection, closed: Iterable[ClosedAssociation]) -> None:
    """Write how and when associations ended."""
    for one in closed:
        connection.execute(
            sa.update(association)
            .where(association.c.id == one.id, association.c.closed_at.is_(None))
            .values(closed_at=one.closed_at, outcome=one.outcome)
        )


def lose_associations(connection: Connection, service_id: str, now: datetime) -> int:
    """Close the open associations of a process that is gone; return how many."""
    lost = (
        sa.update(association)
        .where(association.c.service_id == service_id, association.c.closed_at.is_(None))
        .values(closed_at=now, outcome="lost")
    )
    return connection.execute(lost).rowcount


def index_batch(connection: Connection, received: Sequence[ReceivedInstance], now: datetime) -> BatchOutcome:
    """Write instances with their series and studies, in the order of their arrival.

    Studies are locked in the order of their UIDs, so that two receivers with instances of the same studies wait for
    each other and do not deadlock. Where they do all the same (one SOP Instance UID in two studies), the database ends
    one of them with an error that may pass.

    Parameters
    ----------
    connection
        In a transaction.
    received
        Any number, of any studies; the same instance may stand in it twice.
    now
        When they become visible: the quiet time of their studies counts from here.
    """
    if not received:
        return BatchOutcome()
    uids = {one.header.sop_instance_uid for one in received}
    known_studies = sa.select(instance.c.study_instance_uid).where(instance.c.sop_instance_uid.in_(uids)).distinct()
    coming = {one.header.study_instance_uid for one in received}
    states: dict[str, _StudyState] = {}
    while not coming <= states.keys():  # one may be removed, its time being over, between insert and lock
        _insert_studies(connection, received, now)
        states = _lock_studies(connection, coming | set(connection.scalars(known_studies)))
    _insert_series(connection, received)
    return _Batch(connection, states, uids).index(received, now)


class _Batch:
    """Works through the instances of a batch, its studies being locked."""

    def __init__(self, connection: Connection, states: dict[str, _StudyState], uids: Collection[str]) -> None:
        self._connection = connection
        self._states = states
        self._ours = _own_results(connection, uids)
        self._carried: Counter[tuple[str, str, str]] = Counter()
        self._known: defaultdict[str, dict[str, _Known]] = defaultdict(dict)
        self._new: list[dict[str, Any]] = []
        """Rows to be added, all at once: a statement for each would cost more than all else."""
        columns = (instance.c.id, instance.c.sop_instance_uid, instance.c.digest, instance.c.study_instance_uid)
        query = sa.select(*columns, instance.c.association_id, instance.c.is_current)
        for row_id, uid, digest, *rest in connection.execute(query.where(instance.c.sop_instance_uid.in_(uids))):
            self._known[uid][digest] = _Known(row_id, *rest)

    def index(self, received: Sequence[ReceivedInstance], now: datetime) -> BatchOutcome:
        counts = {"added": 0, "changed": 0, "repeated": 0}
        for one in received:
            counts[self._index_one(one)] += 1
        if self._new:
            self._connection.execute(sa.insert(instance), self._new)
        for uid, state in sorted(self._states.items()):
            if state.is_touched:
                self._write_study(uid, state, now)
        self._write_carried()
        return BatchOutcome(**counts, reopened=sum(state.is_reopened for state in self._states.values()))

    def _index_one(self, one: ReceivedInstance) -> Literal["added", "changed", "repeated"]:
        header = one.header
        versions = self._known[header.sop_instance_uid]
        state = self._states[header.study_instance_uid]
        known = versions.get(one.digest)
        if known is not None and known.is_current:
            if known.association_id != one.association_id:  # else a step that is repeated after a fault
                self._carry(one)
            state.is_touched |= state.is_receiving
            return "repeated"
        self._carry(one)
        if header.sop_instance_uid not in self._ours:
            state.take_new(one)
        for version in versions.values():
            if version.is_current:
                if (former := self._states.get(version.study_uid)) is not None:
                    former.reopen()
                self._update(version, is_current=False)
                version.is_current = False
        if known is None:
            versions[one.digest] = self._insert(one, state.revision)
        else:
            known.is_current = True
            known.association_id = one.association_id
            self._update(known, is_current=True, association_id=one.association_id, study_revision=state.revision)
        return "changed" if len(versions) > 1 else "added"

    def _carry(self, one: ReceivedInstance) -> None:
        """Note that an association carries a study, which is not complete before that has ended."""
        self._carried[one.association_id, one.header.study_instance_uid, one.header.sop_class_uid] += 1

    def _write_carried(self) -> None:
        keys = ("association_id", "study_instance_uid", "sop_class_uid")
        rows = [
            dict(zip(keys, key, strict=True)) | {"instances": count} for key, count in sorted(self._carried.items())
        ]
        upsert_sums(self._connection, association_content, rows, keys=keys, add="instances")

    def _insert(self, one: ReceivedInstance, revision: int) -> _Known:
        header = one.header
        row: dict[str, Any] = {
            "sop_instance_uid": header.sop_instance_uid,
            "digest": one.digest,
            "sop_class_uid": header.sop_class_uid,
            "transfer_syntax_uid": header.transfer_syntax_uid,
            "study_instance_uid": header.study_instance_uid,
            "series_instance_uid": header.series_instance_uid,
            "instance_number": header.instance_number,
            "number_of_frames": header.number_of_frames,
            "rows": header.rows,
            "columns": header.columns,
            "path": one.path,
            "size_bytes": one.size_bytes,
            "is_current": True,
            "study_revision": revision,
            "association_id": one.association_id,
            "calling_ae": one.calling_ae,
            "received_at": one.received_at,
        }
        self._new.append(row)
        return _Known(row, header.study_instance_uid, one.association_id, is_current=True)

    def _update(self, known: _Known, **values: object) -> None:
        if isinstance(known.row, dict):
            known.row.update(values)
            return
        self._connection.execute(sa.update(instance).where(instance.c.id == known.row).values(**values))

    def _write_study(self, uid: str, state: _StudyState, now: datetime) -> None:
        values: dict[str, Any] = {"last_received_at": now}
        if state.latest is not None:
            fields = asdict(state.latest.header.study)
            values |= {name: value for name, value in fields.items() if value not in ("", None)}
            values |= _folded_names(values)
        if state.is_reopened:
            values |= {"state": _RECEIVING, "state_reason": None, "completed_at": None, "revision": state.revision}
            if state.latest is not None:
                values["calling_ae"] = state.latest.calling_ae
        self._connection.execute(sa.update(study).where(study.c.study_instance_uid == uid).values(values))


@dataclass(slots=True)
class _Known:
    """A row of `instance`."""

    row: int | dict[str, Any]
    """Its number; of one that is still to be added, its values."""
    study_uid: str
    association_id: str
    is_current: bool


@dataclass(slots=True)
class _StudyState:
    """A locked study and what the batch does to it."""

    is_receiving: bool
    revision: int
    is_reopened: bool = False
    is_touched: bool = False
    latest: ReceivedInstance | None = None

    def reopen(self) -> None:
        """Note that what belongs to the study changed: a complete one begins its next revision, once a batch."""
        self.is_touched = True
        if not self.is_receiving:
            self.is_receiving = True
            self.is_reopened = True
            self.revision += 1

    def take_new(self, one: ReceivedInstance) -> None:
        """Note another instance of the study; what it says of patient and study is the latest."""
        self.reopen()
        self.latest = one


def _insert_studies(connection: Connection, received: Sequence[ReceivedInstance], now: datetime) -> None:
    first: dict[str, ReceivedInstance] = {}
    for one in received:
        first.setdefault(one.header.study_instance_uid, one)
    rows = [
        {
            "study_instance_uid": uid,
            **(fields := asdict(one.header.study)),
            **_folded_names(fields),
            "calling_ae": one.calling_ae,
            "state": _RECEIVING,
            "priority": "routine",
            "revision": 1,
            "first_received_at": one.received_at,
            "last_received_at": now,
        }
        for uid, one in sorted(first.items())
    ]
    insert_ignore(connection, study, rows, keys=["study_instance_uid"])


def _folded_names(fields: Mapping[str, Any]) -> dict[str, str]:
    """Return what queries match, for those of the names that are there."""
    names = ("patient_name", "referring_physician")
    return {f"{name}_folded": folded(fields[name]) for name in names if name in fields}


def _lock_studies(connection: Connection, uids: Collection[str]) -> dict[str, _StudyState]:
    query = (
        sa.select(study.c.study_instance_uid, study.c.state, study.c.revision)
        .where(study.c.study_instance_uid.in_(uids))
        .order_by(study.c.study_instance_uid)
        .with_for_update()
    )
    return {uid: _StudyState(state == _RECEIVING, revision) for uid, state, revision in connection.execute(query)}


def _insert_series(connection: Connection, received: Sequence[ReceivedInstance]) -> None:
    first: dict[tuple[str, str], ReceivedInstance] = {}
    for one in received:
        first.setdefault((one.header.study_instance_uid, one.header.series_instance_uid), one)
    rows = [
        {"study_instance_uid": study_uid, "series_instance_uid": series_uid, **asdict(one.header.series)}
        for (study_uid, series_uid), one in sorted(first.items())
    ]
    insert_ignore(connection, series, rows, keys=["study_instance_uid", "series_instance_uid"])


def _own_results(connection: Connection, uids: Collection[str]) -> set[str]:
    """Return which of the instances are results of ours, sent back by a PACS: they are kept and reopen no study."""
    query = sa.select(artefact.c.sop_instance_uid).where(artefact.c.sop_instance_uid.in_(uids))
    return {uid for uid in connection.scalars(query) if uid is not None}
