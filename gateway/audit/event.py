"""What happened, who took part, and what it was about. Knows neither DICOM XML nor FHIR."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Literal

import orjson

from gateway.audit.codes import Code

Action = Literal["C", "R", "U", "D", "E"]
"""Create, read, update, delete, execute (PS3.15 A.5.2)."""
EntityKind = Literal["patient", "study", "query", "search", "node", "resource", "audit-log"]
LONGEST_TEXT = 16384
"""Characters of one text; what strangers send is cut here."""


class Kind(StrEnum):
    """Kinds of event (PS3.16 CID 400)."""

    APPLICATION_ACTIVITY = "application-activity"
    AUDIT_LOG_USED = "audit-log-used"
    BEGIN_TRANSFERRING = "begin-transferring"
    INSTANCES_ACCESSED = "instances-accessed"
    INSTANCES_TRANSFERRED = "instances-transferred"
    STUDY_DELETED = "study-deleted"
    EXPORT = "export"
    IMPORT = "import"
    PATIENT_RECORD = "patient-record"
    PROCEDURE_RECORD = "procedure-record"
    QUERY = "query"
    SECURITY_ALERT = "security-alert"
    USER_AUTHENTICATION = "user-authentication"


class Outcome:
    """Event Outcome Indicator (PS3.15 A.5.1)."""

    SUCCESS = 0
    MINOR_FAILURE = 4
    SERIOUS_FAILURE = 8


@dataclass(frozen=True, slots=True)
class Participant:
    """A person or a program that took part."""

    user_id: str
    is_requestor: bool = False
    role: Code | None = None
    address: str = ""
    """IP address, host name or URI."""
    other_id: str = ""
    """Another name of the same: AE titles, a process."""

    def __post_init__(self) -> None:
        _bound(self, "user_id", "address", "other_id")


@dataclass(frozen=True, slots=True)
class Entity:
    """What it was about."""

    kind: EntityKind
    id: str
    query: str = ""
    """What was asked: of a search its parameters, of a C-FIND its identifier in base64."""
    transfer_syntax_uid: str = ""
    """Of the identifier of a C-FIND."""
    sop_classes: tuple[tuple[str, int], ...] = ()
    """SOP Class UID and number of instances, of a study."""
    accession_number: str = ""

    def __post_init__(self) -> None:
        _bound(self, "id", "query", "accession_number")


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One event."""

    kind: Kind
    action: Action
    participants: tuple[Participant, ...]
    entities: tuple[Entity, ...] = ()
    types: tuple[Code, ...] = ()
    outcome: int = Outcome.SUCCESS
    reason: str = ""
    """Of a failure; no patient data."""
    recorded_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    id: str = field(default_factory=lambda: str(uuid.uuid4()))

    @property
    def actor(self) -> str:
        """Who asked."""
        asking = [each.user_id for each in self.participants if each.is_requestor]
        return (asking or [each.user_id for each in self.participants] or [""])[0]

    def first(self, kind: EntityKind) -> str | None:
        """Return the id of the first entity of a kind."""
        return next((each.id for each in self.entities if each.kind == kind), None)


def encode(event: AuditEvent) -> str:
    """Return an event as one line of JSON, the same bytes for the same event."""
    return orjson.dumps(event, option=orjson.OPT_SORT_KEYS).decode()


def decode(text: str | bytes) -> AuditEvent:
    """Return the event of a line; ValueError where it is none."""
    try:
        raw: dict[str, Any] = orjson.loads(text)
        return AuditEvent(
            kind=Kind(raw["kind"]),
            action=raw["action"],
            participants=tuple(Participant(**{**each, "role": _code(each["role"])}) for each in raw["participants"]),
            entities=tuple(
                Entity(**{**each, "sop_classes": tuple((uid, count) for uid, count in each["sop_classes"])})
                for each in raw["entities"]
            ),
            types=tuple(Code(**each) for each in raw["types"]),
            outcome=raw["outcome"],
            reason=raw["reason"],
            recorded_at=datetime.fromisoformat(raw["recorded_at"]),
            id=raw["id"],
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not an audit event: {type(error).__name__}") from error


def bounded(text: str) -> str:
    """Return text from outside, of bounded length and without what XML, databases and terminals cannot show."""
    kept = (char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text[:LONGEST_TEXT])
    return "".join(kept)


def study_entities(
    study_instance_uid: str,
    patient_id: str | None = None,
    sop_classes: Sequence[tuple[str, int]] = (),
    accession_number: str = "",
) -> tuple[Entity, ...]:
    """Return a study and its patient; without a patient id it is looked up when the event reaches the database."""
    study = Entity(
        "study", study_instance_uid, sop_classes=tuple(sorted(sop_classes)), accession_number=accession_number
    )
    return (study,) if not patient_id else (study, Entity("patient", patient_id))


def _bound(of: Participant | Entity, *names: str) -> None:
    for name in names:
        object.__setattr__(of, name, bounded(getattr(of, name)))


def _code(raw: dict[str, str] | None) -> Code | None:
    return None if raw is None else Code(**raw)
