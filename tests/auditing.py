"""One event of every kind that the gateway records, and a trail to look at."""

from __future__ import annotations

from gateway.audit import acts, codes
from gateway.audit.event import AuditEvent, Kind, Participant

WHO = Participant("curie", is_requestor=True, address="192.0.2.7")
FIND = "1.2.840.10008.5.1.4.1.2.2.1"
MOVED = acts.Moved("1.2.3", (("1.2.840.10008.5.1.4.1.1.2", 3),), patient_id="P1", accession_number="A1")


def every_act() -> list[AuditEvent]:
    """Return one event of each act."""
    return [
        acts.application_activity("receive", is_start=True),
        acts.application_activity("receive", is_start=False),
        acts.transferred("HYBRIDMED", "PACS", MOVED, direction="out", is_begin=True),
        acts.transferred("HYBRIDMED", "CT1", MOVED, direction="in", address="192.0.2.1"),
        acts.transferred("HYBRIDMED", "PACS", MOVED, direction="out", asked_by="VIEWER", failure="no answer"),
        acts.queried("HYBRIDMED", acts.peer("VIEWER", "2001:db8::1"), FIND, b"\x08\0\x05\0", "1.2.840.10008.1.2"),
        acts.deleted(WHO, MOVED, "older than 365 days"),
        acts.refused_node("EVIL", "192.0.2.66", "calling AE"),
        acts.log_used(WHO, "hybridmed audit"),
        *acts.on_studies(WHO, ["1.2.3"], codes.VERIFICATION, Kind.PROCEDURE_RECORD, "U"),
        acts.security_changed(WHO, "token viewer-1"),
        acts.reidentified(WHO, "0123456789ABCDEF0123", "P1", ["1.2.3"]),
    ]
