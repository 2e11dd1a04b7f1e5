"""What follows from the lines of the trail, in the role `dispatch`: FHIR resources, syslog, what associations brought.

Any number may run at once: each follower's place is a row that one process holds.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import sqlalchemy as sa
import structlog
from sqlalchemy.engine import Connection

from gateway.audit.acts import Moved, transferred
from gateway.audit.chain import ChainKey
from gateway.audit.dicom_xml import AuditSource, audit_message
from gateway.audit.event import AuditEvent, decode
from gateway.audit.lines import Line, LineFilter, append, cursor, give_cursor, list_lines, take_cursor
from gateway.audit.syslog import Repository, syslog_message
from gateway.errors import DatabaseAwayError, DestinationAwayError
from gateway.services import Heartbeat
from gateway.store import Store
from gateway.store.results import FhirVersion, write_resources
from gateway.store.tables import association, association_content, audit_event, study

log = structlog.get_logger()

_POLL_S = 1.0
_AWAY_S = 2.0
_BATCH = 100
_HOLD_S = 120.0
_LONGEST_REST_S = 60.0
_MOST_DOUBLINGS = 6
_FHIR, _SYSLOG = "fhir", "syslog"

AsResource = Callable[[Connection, AuditEvent], FhirVersion]


class AuditKeeper:
    """Tells what associations brought, and makes the FHIR resources.

    Parameters
    ----------
    store, key
        Where the trail is.
    as_resource
        An event as a FHIR resource; None: none are made.
    """

    name = "audit"

    def __init__(self, store: Store, key: ChainKey, as_resource: AsResource | None) -> None:
        self._store = store
        self._key = key
        self._as_resource = as_resource

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set."""
        while not stop.is_set():
            try:
                while self.turn() and not stop.is_set():
                    continue
            except DatabaseAwayError as error:
                log.warning("audit.away", part="database", reason=str(error))
                stop.wait(_AWAY_S)
            stop.wait(_POLL_S)

    def turn(self) -> bool:
        """Do what is due, a batch of each; return whether there may be more."""
        told = self._tell_associations()
        made = self._make_resources() if self._as_resource is not None else 0
        return _BATCH in {told, made}

    def _tell_associations(self) -> int:
        ended = sa.and_(association.c.is_audited.is_(False), association.c.closed_at.is_not(None))
        query = sa.select(association).where(ended).order_by(association.c.closed_at).limit(_BATCH)
        with self._store.read() as connection:
            if connection.execute(query.limit(1)).first() is None:
                return 0
        with self._store.write() as connection:
            rows = connection.execute(query.with_for_update(skip_locked=True)).all()
            append(connection, [event for row in rows for event in _brought(connection, row)], self._key)
            ids = [row.id for row in rows]
            connection.execute(sa.update(association).where(association.c.id.in_(ids)).values(is_audited=True))
        return len(rows)

    def _make_resources(self) -> int:
        assert self._as_resource is not None  # noqa: S101 # the caller looked
        with self._store.read() as connection:
            if not has_more(connection, _FHIR):
                return 0
        now = datetime.now(UTC)
        with self._store.write() as connection:
            position = take_cursor(connection, _FHIR, now, _HOLD_S)
            if position is None:
                return 0
            lines = list_lines(connection, LineFilter(after=position), limit=_BATCH)
            resources = [self._as_resource(connection, event) for event in events_of(lines)]
            write_resources(connection, resources, now, job_id=None)
            give_cursor(connection, _FHIR, lines[-1].position if lines else position)
        return len(lines)


class SyslogForwarder:
    """Sends every line to the audit repository, in order; what it has not taken waits, however long.

    A line may come twice after a kill or a broken connection: its message is the same both times.

    Parameters
    ----------
    store, heartbeat
        Where the trail is; who hears that the repository is away.
    repository
        Where messages go.
    source
        Who reports.
    """

    name = "audit-syslog"

    def __init__(self, store: Store, heartbeat: Heartbeat, repository: Repository, source: AuditSource) -> None:
        self._store = store
        self._heartbeat = heartbeat
        self._repository = repository
        self._source = source
        self._failures = 0

    def run(self, stop: threading.Event) -> None:
        """Send until `stop` is set."""
        try:
            while not stop.is_set():
                try:
                    while self.turn() and not stop.is_set():
                        continue
                    stop.wait(_POLL_S)
                except DatabaseAwayError as error:
                    log.warning("audit.away", part="database", reason=str(error))
                    stop.wait(_AWAY_S)
                except DestinationAwayError as error:
                    self._failures += 1
                    log.warning("audit.away", part="repository", reason=str(error))
                    self._heartbeat.degraded("audit repository", str(error))
                    stop.wait(min(2.0 ** min(self._failures, _MOST_DOUBLINGS), _LONGEST_REST_S))
        finally:
            self._repository.close()

    def turn(self) -> bool:
        """Send a batch; return whether there may be more. DestinationAwayError where the repository is away."""
        with self._store.read() as connection:
            if not has_more(connection, _SYSLOG):
                return False
        with self._store.write() as connection:
            position = take_cursor(connection, _SYSLOG, datetime.now(UTC), _HOLD_S)
        if position is None:
            return False
        sent = position
        try:
            with self._store.read() as connection:
                lines = list_lines(connection, LineFilter(after=position), limit=_BATCH)
            for line in lines:
                for event in events_of([line]):
                    self._repository.send(syslog_message(audit_message(event, self._source), event.recorded_at))
                sent = line.position
        finally:
            with self._store.write() as connection:
                give_cursor(connection, _SYSLOG, sent)
        self._failures = 0
        self._heartbeat.recovered("audit repository")
        self._heartbeat.counters.add("hybridmed_audit_messages_sent_total", len(lines))
        return len(lines) == _BATCH


def events_of(lines: Sequence[Line]) -> list[AuditEvent]:
    """Return the events of lines; one that somebody made unreadable is left out, `audit verify` names it."""
    events = []
    for line in lines:
        try:
            events.append(decode(line.body))
        except ValueError:
            log.error("audit.line_broken", position=line.position)
    return events


def has_more(connection: Connection, name: str) -> bool:
    """Say whether lines stand behind a follower's place."""
    behind = sa.select(audit_event.c.position).where(audit_event.c.position > cursor(connection, name)).limit(1)
    return connection.scalar(behind) is not None


def _brought(connection: Connection, row: sa.Row[tuple[object, ...]]) -> list[AuditEvent]:
    """Return what an association that ended has brought, an event for each study."""
    content = association_content.c
    query = (
        sa.select(content.study_instance_uid, content.sop_class_uid, content.instances)
        .where(content.association_id == row.id)
        .order_by(content.sop_class_uid)
    )
    counts: defaultdict[str, list[tuple[str, int]]] = defaultdict(list)
    for uid, sop_class_uid, count in connection.execute(query):
        counts[uid].append((sop_class_uid, count))
    accessions = sa.select(study.c.study_instance_uid, study.c.accession_number).where(
        study.c.study_instance_uid.in_(counts)
    )
    numbers = {each.study_instance_uid: each.accession_number for each in connection.execute(accessions)}
    failure = "" if row.outcome == "released" else f"association {row.outcome}"
    return [
        transferred(
            row.called_ae,
            row.calling_ae,
            Moved(uid, tuple(classes), accession_number=numbers.get(uid, "")),
            direction="in",
            failure=failure,
        )
        for uid, classes in sorted(counts.items())
    ]
