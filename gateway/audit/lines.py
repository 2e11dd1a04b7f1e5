"""The chain in the database: append, list, verify. One head for all processes; batches keep its lock short."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from gateway.audit.chain import BEGINNING, ChainKey
from gateway.audit.event import AuditEvent, Entity, decode, encode
from gateway.store.engine import insert_ignore
from gateway.store.tables import audit_cursor, audit_event, fhir_resource, study

HEAD = "head"
_PAGE = 500
_ACTOR_LENGTH, _PATIENT_LENGTH, _UID_LENGTH = 255, 255, 64
FaultKind = Literal["removed", "altered", "reordered", "appended"]


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the trail; the fields are those of the table."""

    position: int
    event_id: str
    recorded_at: datetime
    kind: str
    actor: str
    patient_id: str | None
    study_instance_uid: str | None
    body: str
    previous: str
    hash: str


@dataclass(frozen=True, slots=True)
class LineFilter:
    """Which lines; all conditions hold together."""

    after: int = 0
    kind: str | None = None
    actor: str | None = None
    patient_id: str | None = None
    study_instance_uid: str | None = None
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that is wrong with the chain."""

    position: int
    kind: FaultKind
    text: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What `verify` found."""

    lines: int
    head: str
    """Hash of the last line: kept elsewhere, it shows later that nothing was cut off since."""
    faults: tuple[Fault, ...]


def append(connection: Connection, events: Sequence[AuditEvent], key: ChainKey) -> int:
    """Add events behind the last line, each once however often it comes; return how many were new."""
    if not events:
        return 0
    position, last = _locked_head(connection, key)
    ids = [event.id for event in events]
    known = set(connection.scalars(sa.select(audit_event.c.event_id).where(audit_event.c.event_id.in_(ids))))
    fresh = {event.id: event for event in events if event.id not in known}
    rows: list[dict[str, Any]] = []
    for event in _with_patients(connection, list(fresh.values())):
        body = encode(event)
        position += 1
        hashed = key.hash(last, body)
        rows.append({"position": position, **_columns(event), "body": body, "previous": last, "hash": hashed})
        last = hashed
    if rows:
        connection.execute(sa.insert(audit_event), rows)
        connection.execute(
            sa.update(audit_cursor)
            .where(audit_cursor.c.name == HEAD)
            .values(position=position, hash=last, seal=key.seal(position, last))
        )
    return len(rows)


def list_lines(connection: Connection, which: LineFilter, *, limit: int, newest_first: bool = False) -> list[Line]:
    """Return lines in the order of the chain, or the newest first."""
    conditions = [audit_event.c.position > which.after]
    for name in ("kind", "actor", "patient_id", "study_instance_uid"):
        if (value := getattr(which, name)) is not None:
            conditions.append(audit_event.c[name] == value)
    if which.since is not None:
        conditions.append(audit_event.c.recorded_at >= which.since)
    order = audit_event.c.position.desc() if newest_first else audit_event.c.position
    rows = connection.execute(sa.select(audit_event).where(*conditions).order_by(order).limit(limit))
    return [Line(**row._mapping) for row in rows]


def all_lines(connection: Connection, which: LineFilter | None = None) -> Iterator[Line]:
    """Yield lines in the order of the chain, a page in memory at a time."""
    here = which or LineFilter()
    while page := list_lines(connection, here, limit=_PAGE):
        yield from page
        here = replace(here, after=page[-1].position)


def verify(connection: Connection, key: ChainKey) -> Verdict:
    """Walk the chain and name every line that was removed, altered, moved or added by hand."""
    faults: list[Fault] = []
    count, position, last = 0, 0, BEGINNING
    head = _head(connection)
    end = head.position if head is not None else 0
    for line in all_lines(connection):
        count += 1
        if line.position > end:  # it may have come since
            head = _head(connection)
            end = head.position if head is not None else 0
        if line.position > end:
            faults.append(Fault(line.position, "appended", f"line {line.position} stands behind the head, line {end}"))
        if line.position > position + 1:
            faults.append(_gap(position + 1, line.position - 1))
        if (problem := _content_fault(line, key)) is not None:
            faults.append(problem)
        if line.previous != last and line.position == position + 1:
            faults.append(_link_fault(connection, line))
        position, last = line.position, line.hash
    if position < end:
        faults.append(_gap(position + 1, end))
    if head is None and count:
        faults.append(Fault(0, "removed", "the head of the chain is missing"))
    elif head is not None and not _is_sealed(head, key, position, last):
        faults.append(Fault(end, "altered", "the head of the chain was altered, or another key made it"))
    return Verdict(count, last, tuple(faults))


def cursor(connection: Connection, name: str) -> int:
    """Return how far a follower of the chain has come."""
    return connection.scalar(sa.select(audit_cursor.c.position).where(audit_cursor.c.name == name)) or 0


def take_cursor(connection: Connection, name: str, now: datetime, hold_s: float) -> int | None:
    """Hold a follower's place for so long and return it; None where another process holds it."""
    _ensure(connection, name, "")
    free = sa.or_(audit_cursor.c.held_until.is_(None), audit_cursor.c.held_until < now)
    statement = sa.update(audit_cursor).where(audit_cursor.c.name == name, free)
    until = now + timedelta(seconds=hold_s)
    position: int | None = connection.scalar(statement.values(held_until=until).returning(audit_cursor.c.position))
    return position


def give_cursor(connection: Connection, name: str, position: int) -> None:
    """Write how far a follower has come, and hold its place no longer."""
    statement = sa.update(audit_cursor).where(audit_cursor.c.name == name)
    connection.execute(statement.values(position=position, held_until=None))


def _head(connection: Connection) -> sa.Row[Any] | None:
    return connection.execute(sa.select(audit_cursor).where(audit_cursor.c.name == HEAD)).one_or_none()


def _locked_head(connection: Connection, key: ChainKey) -> tuple[int, str]:
    _ensure(connection, HEAD, key.seal(0, BEGINNING))
    query = sa.select(audit_cursor.c.position, audit_cursor.c.hash).where(audit_cursor.c.name == HEAD)
    row = connection.execute(query.with_for_update()).one()
    return row.position, row.hash


def _ensure(connection: Connection, name: str, seal: str) -> None:
    row = {"name": name, "position": 0, "hash": BEGINNING if seal else "", "seal": seal}
    insert_ignore(connection, audit_cursor, [row], keys=["name"])


def _columns(event: AuditEvent) -> dict[str, Any]:
    patient_id, study_uid = event.first("patient"), event.first("study")
    return {
        "event_id": event.id,
        "recorded_at": event.recorded_at,
        "kind": event.kind.value,
        "actor": event.actor[:_ACTOR_LENGTH],
        "patient_id": None if patient_id is None else patient_id[:_PATIENT_LENGTH],
        "study_instance_uid": None if study_uid is None else study_uid[:_UID_LENGTH],
    }


def _with_patients(connection: Connection, events: Sequence[AuditEvent]) -> list[AuditEvent]:
    """Add the patient to events about a study, and study and patient to events about a FHIR resource."""
    resources = {each.first("resource") for each in events} - {None}
    studies = _studies_of(connection, [each for each in resources if each is not None])
    found = [_with_study(event, studies) for event in events]
    wanted = {each.first("study") for each in found if each.first("patient") is None} - {None}
    query = sa.select(study.c.study_instance_uid, study.c.patient_id).where(study.c.study_instance_uid.in_(wanted))
    patients: dict[str, str] = {row.study_instance_uid: row.patient_id for row in connection.execute(query)}
    return [_with_patient(event, patients) for event in found]


def _studies_of(connection: Connection, resources: Sequence[str]) -> dict[str, str]:
    ids = [each.partition("/")[2].partition("/")[0] for each in resources]
    query = sa.select(fhir_resource.c.type, fhir_resource.c.resource_id, fhir_resource.c.study_instance_uid).where(
        fhir_resource.c.resource_id.in_(ids), fhir_resource.c.study_instance_uid.is_not(None)
    )
    return {f"{row.type}/{row.resource_id}": row.study_instance_uid for row in connection.execute(query)}


def _with_study(event: AuditEvent, studies: dict[str, str]) -> AuditEvent:
    name = event.first("resource")
    uid = studies.get("/".join(name.split("/")[:2])) if name is not None else None
    if uid is None or event.first("study") is not None:
        return event
    return replace(event, entities=(*event.entities, Entity("study", uid)))


def _with_patient(event: AuditEvent, patients: dict[str, str]) -> AuditEvent:
    uid = event.first("study")
    if uid is None or event.first("patient") is not None or not patients.get(uid):
        return event
    return replace(event, entities=(*event.entities, Entity("patient", patients[uid])))


def _is_sealed(head: sa.Row[Any], key: ChainKey, position: int, last: str) -> bool:
    is_end_as_sealed = position != head.position or last == head.hash
    return bool(head.seal == key.seal(head.position, head.hash)) and is_end_as_sealed


def _content_fault(line: Line, key: ChainKey) -> Fault | None:
    if key.hash(line.previous, line.body) != line.hash:
        return Fault(line.position, "altered", f"line {line.position} was altered, or added by hand")
    try:
        expected = _columns(decode(line.body))
    except ValueError:
        return Fault(line.position, "altered", f"line {line.position} holds no event")
    differing = [name for name, value in expected.items() if getattr(line, name) != value]
    if differing:
        return Fault(line.position, "altered", f"line {line.position}: {', '.join(differing)} differs from the event")
    return None


def _link_fault(connection: Connection, line: Line) -> Fault:
    query = sa.select(audit_event.c.position).where(audit_event.c.hash == line.previous)
    follows = connection.scalar(query.limit(1))
    if follows is not None or line.previous == BEGINNING:
        return Fault(line.position, "reordered", f"line {line.position} belongs behind line {follows or 0}")
    return Fault(line.position, "removed", f"a line is missing before line {line.position}, or its hash was altered")


def _gap(first: int, last: int) -> Fault:
    text = f"line {first} is missing" if first == last else f"lines {first} to {last} are missing"
    return Fault(first, "removed", text)
