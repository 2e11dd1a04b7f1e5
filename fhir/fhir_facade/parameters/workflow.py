"""What may be asked of how it came about: Provenance, Task, AuditEvent, Subscription, Flag."""

from __future__ import annotations

from dataclasses import replace

from fhir_facade.parameters.parameter import date, own, reference, string, token, uri

_FHIR = "http://hl7.org/fhir/"
_RESULTS = ("DiagnosticReport", "Observation", "ImagingStudy", "ServiceRequest", "Patient", "Media", "Task")
_AGENTS = ("Device", "Practitioner", "PractitionerRole", "Organization", "Patient", "RelatedPerson")

PROVENANCE = (
    reference("target", "target", *_RESULTS),
    reference("patient", "target", "Patient"),
    reference("agent", "agent.who", *_AGENTS),
    token("agent-role", "agent.role"),
    token("agent-type", "agent.type"),
    reference("entity", "entity.what", *_RESULTS),
    reference("location", "location", "Location"),
    token("signature-type", "signature.type"),
    date("recorded", "recorded"),
    date("when", "occurredDateTime | occurredPeriod"),
    own("date", "date", "The same as recorded", rows=("recorded",)),
)
TASK = (
    token("identifier", "identifier"),
    token("group-identifier", "groupIdentifier"),
    token("status", "status", system=_FHIR + "task-status"),
    token("intent", "intent", system=_FHIR + "task-intent"),
    token("priority", "priority", system=_FHIR + "request-priority"),
    token("business-status", "businessStatus"),
    token("code", "code"),
    token("performer", "performerType"),
    date("authored-on", "authoredOn"),
    date("modified", "lastModified"),
    date("period", "executionPeriod"),
    reference("subject", "for", "Patient", "Device", "Group"),
    reference("patient", "", "Patient", rows=("subject",)),
    reference("encounter", "encounter", "Encounter"),
    reference("focus", "focus", *_RESULTS),
    reference("based-on", "basedOn", "ServiceRequest", "Task"),
    reference("part-of", "partOf", "Task"),
    reference("owner", "owner", *_AGENTS),
    reference("requester", "requester", *_AGENTS),
)
AUDIT_EVENT = (
    token("action", "action", system=_FHIR + "audit-event-action"),
    string("address", "agent.network.address"),
    reference("agent", "agent.who", *_AGENTS),
    string("agent-name", "agent.name"),
    token("agent-role", "agent.role"),
    token("altid", "agent.altId"),
    date("date", "recorded"),
    reference("entity", "entity.what", *_RESULTS),
    string("entity-name", "entity.name"),
    token("entity-role", "entity.role"),
    token("entity-type", "entity.type"),
    token("outcome", "outcome", system=_FHIR + "audit-event-outcome"),
    reference("patient", "agent.who | entity.what", "Patient"),
    uri("policy", "agent.policy"),
    token("site", "source.site"),
    reference("source", "source.observer", *_AGENTS),
    token("subtype", "subtype"),
    token("type", "type"),
)
SUBSCRIPTION = (
    token("contact", "contact"),
    string("criteria", "criteria"),
    token("payload", "channel.payload"),
    token("status", "status", system=_FHIR + "subscription-status"),
    token("type", "channel.type", system=_FHIR + "subscription-channel-type"),
    uri("url", "channel.endpoint"),
)
FLAG = (
    reference("patient", "subject", "Patient", definition="clinical-patient"),
    reference("subject", "subject", "Patient"),
    reference("author", "author", *_AGENTS),
    token("identifier", "identifier"),
    date("date", "period", "clinical-date"),
)
EVERY_TYPE = (
    replace(token("_id", ""), definition="Resource-id"),
    replace(date("_lastUpdated", ""), definition="Resource-lastUpdated"),
    token("_tag", "meta.tag", "Resource-tag"),
    token("_security", "meta.security", "Resource-security"),
    uri("_profile", "meta.profile", "Resource-profile"),
    uri("_source", "meta.source", "Resource-source"),
)
"""`_id` and `_lastUpdated` are columns of the resource and no rows of the index."""
