"""The events that this gateway knows, each as the tables of PS3.15 A.5.3 want it (pure)."""

from __future__ import annotations

import base64
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from gateway.audit import codes
from gateway.audit.codes import Code
from gateway.audit.event import Action, AuditEvent, Entity, Kind, Outcome, Participant, study_entities

_LONGEST_IDENTIFIER = 12288
"""Bytes of a query that are kept: as text they fit the limit of one text."""

Direction = Literal["in", "out"]


@dataclass(frozen=True, slots=True)
class Moved:
    """Instances of one study that came, or went."""

    study_instance_uid: str
    sop_classes: tuple[tuple[str, int], ...] = ()
    """SOP Class UID and number of instances."""
    patient_id: str | None = None
    """None: looked up when the event reaches the database."""
    accession_number: str = ""


def ourselves(name: str, *, is_requestor: bool = False, role: Code | None = None) -> Participant:
    """Return this process as a participant; `name` is our AE title or a role."""
    return Participant(name, is_requestor, role, address=socket.gethostname(), other_id=f"pid {os.getpid()}")


def application_activity(role: str, *, is_start: bool) -> AuditEvent:
    """Return that a role started or stopped (A.5.3.1)."""
    kind = codes.APPLICATION_START if is_start else codes.APPLICATION_STOP
    who = ourselves(role, role=codes.APPLICATION)
    return AuditEvent(Kind.APPLICATION_ACTIVITY, "E", (who,), types=(kind,))


def transferred(  # noqa: PLR0913 # the two sides, and how it went
    ae_title: str,
    other: str,
    moved: Moved,
    *,
    direction: Direction,
    is_begin: bool = False,
    address: str = "",
    asked_by: str | None = None,
    failure: str = "",
) -> AuditEvent:
    """Return that instances are about to be sent (A.5.3.3), or came or went (A.5.3.5).

    Parameters
    ----------
    ae_title, other
        Ours, and the other side's.
    asked_by
        A third, who asked for it: of a C-MOVE.
    failure
        Why it went wrong; '' where it did not.
    """
    is_in = direction == "in"
    asks_by_itself = asked_by is None
    own_role, peer_role = (codes.DESTINATION, codes.SOURCE) if is_in else (codes.SOURCE, codes.DESTINATION)
    participants = [
        ourselves(ae_title, is_requestor=asks_by_itself and not is_in, role=own_role),
        Participant(other, asks_by_itself and is_in, peer_role, address),
    ]
    if asked_by is not None:
        participants.append(Participant(asked_by, is_requestor=True))
    action: Action = "E" if is_begin else "C" if is_in else "R"
    return AuditEvent(
        Kind.BEGIN_TRANSFERRING if is_begin else Kind.INSTANCES_TRANSFERRED,
        action,
        tuple(participants),
        study_entities(moved.study_instance_uid, moved.patient_id, moved.sop_classes, moved.accession_number),
        outcome=Outcome.MINOR_FAILURE if failure else Outcome.SUCCESS,
        reason=failure,
    )


def queried(
    ae_title: str, asking: Participant, sop_class_uid: str, identifier: bytes, transfer_syntax_uid: str
) -> AuditEvent:
    """Return that a peer asked by C-FIND (A.5.3.10); `identifier` is its data set as it came."""
    asked = Entity(
        "query", sop_class_uid, base64.b64encode(identifier[:_LONGEST_IDENTIFIER]).decode(), transfer_syntax_uid
    )
    return AuditEvent(Kind.QUERY, "E", (asking, ourselves(ae_title, role=codes.DESTINATION)), (asked,))


def peer(ae_title: str, address: str = "") -> Participant:
    """Return a peer who asks."""
    return Participant(ae_title, True, codes.SOURCE, address)


def deleted(who: Participant, moved: Moved, reason: str) -> AuditEvent:
    """Return that a study was removed (A.5.3.6); `reason` is the rule that wanted it."""
    entities = study_entities(moved.study_instance_uid, moved.patient_id, moved.sop_classes, moved.accession_number)
    return AuditEvent(Kind.STUDY_DELETED, "D", (who,), entities, reason=reason)


def refused_node(name: str, address: str, reason: str) -> AuditEvent:
    """Return that an association or a connection was refused (A.5.3.11, node authentication)."""
    return AuditEvent(
        Kind.SECURITY_ALERT,
        "E",
        (Participant(name or address, is_requestor=True, address=address),),
        (Entity("node", name or address),),
        (codes.NODE_AUTHENTICATION,),
        Outcome.MINOR_FAILURE,
        reason,
    )


def log_used(who: Participant, uri: str) -> AuditEvent:
    """Return that the audit trail was read (A.5.3.2)."""
    return AuditEvent(Kind.AUDIT_LOG_USED, "R", (who,), (Entity("audit-log", uri),))


def on_studies(who: Participant, uids: Sequence[str], what: Code, kind: Kind, action: Action) -> list[AuditEvent]:
    """Return what somebody did to studies, an event for each."""
    return [AuditEvent(kind, action, (who,), study_entities(uid), (what,)) for uid in uids]


def security_changed(who: Participant, what: str) -> AuditEvent:
    """Return that somebody changed who may do what (A.5.3.11); `what` names the token or client, never its secret."""
    return AuditEvent(Kind.SECURITY_ALERT, "E", (who,), (Entity("resource", what),), (codes.USER_SECURITY_CHANGED,))


def reidentified(who: Participant, pseudonym: str, patient_id: str, uids: Sequence[str]) -> AuditEvent:
    """Return that somebody asked whom a pseudonym stands for (A.5.3.11), with the studies found, if any."""
    studies = tuple(Entity("study", uid) for uid in uids)
    patients = (Entity("patient", patient_id),) if patient_id else ()
    return AuditEvent(
        Kind.SECURITY_ALERT,
        "R",
        (who,),
        (Entity("search", "hybridmed privacy who", pseudonym), *studies, *patients),
        (codes.REIDENTIFICATION,),
        Outcome.SUCCESS if uids else Outcome.MINOR_FAILURE,
        "" if uids else "nobody found",
    )


def operator() -> Participant:
    """Return the person at the command line: the user of the operating system."""
    return Participant(
        os.environ.get("SUDO_USER") or os.environ.get("USER") or f"uid {os.getuid()}",
        is_requestor=True,
        address=socket.gethostname(),
        other_id="hybridmed",
    )
