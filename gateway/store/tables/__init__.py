"""All tables. Times are UTC; UIDs are strings of at most 64 characters (PS3.5 9.1).

base.py        the MetaData, and the types of UIDs, AE titles and row numbers
receiving.py   who receives, and what was received
processing.py  jobs, what they found and where it goes
people.py      commitment, workitems, sessions
access.py      tokens, registered clients
fhir.py        FHIR resources and their index
exchange.py    who is told of FHIR resources, what others wrote, how far they were asked
audit.py       who did what
retention.py   files that are to be removed
operate.py     what all hosts of one installation share
"""

from gateway.store.tables.access import access_token, smart_client, used_assertion
from gateway.store.tables.audit import audit_cursor, audit_event
from gateway.store.tables.base import metadata
from gateway.store.tables.exchange import (
    demographic_issue,
    fhir_change,
    fhir_poll,
    fhir_subscription,
    fhir_subscription_event,
    fhir_written,
)
from gateway.store.tables.fhir import fhir_export, fhir_index, fhir_index_state, fhir_resource
from gateway.store.tables.operate import installation, schema_floor
from gateway.store.tables.people import commitment, web_session, workitem, workitem_event, workitem_subscription
from gateway.store.tables.processing import artefact, delivery, finding, job, outbox
from gateway.store.tables.receiving import (
    association,
    association_content,
    instance,
    quarantine,
    rejection,
    series,
    service,
    study,
)
from gateway.store.tables.retention import removal, tally

__all__ = [
    "access_token",
    "artefact",
    "association",
    "association_content",
    "audit_cursor",
    "audit_event",
    "commitment",
    "delivery",
    "demographic_issue",
    "fhir_change",
    "fhir_export",
    "fhir_index",
    "fhir_index_state",
    "fhir_poll",
    "fhir_resource",
    "fhir_subscription",
    "fhir_subscription_event",
    "fhir_written",
    "finding",
    "installation",
    "instance",
    "job",
    "metadata",
    "outbox",
    "quarantine",
    "rejection",
    "removal",
    "schema_floor",
    "series",
    "service",
    "smart_client",
    "study",
    "tally",
    "used_assertion",
    "web_session",
    "workitem",
    "workitem_event",
    "workitem_subscription",
]
