"""The topics that clients may subscribe to by the backport: versions of one resource type each."""

from __future__ import annotations

from typing import Final

BACKPORT: Final = "http://hl7.org/fhir/uv/subscriptions-backport"
"""Canonical base of the implementation guide."""
TOPICS: Final = {
    "urn:hybridmed:subscription-topic:diagnostic-report": "DiagnosticReport",
    "urn:hybridmed:subscription-topic:observation": "Observation",
    "urn:hybridmed:subscription-topic:imaging-study": "ImagingStudy",
    "urn:hybridmed:subscription-topic:patient": "Patient",
}
"""Canonical -> resource type: an event is a new or changed version, or that the resource is gone; it is filtered by the
type's search parameters."""


def extension_url(name: str) -> str:
    """Return the URL of one of the guide's extensions."""
    return f"{BACKPORT}/StructureDefinition/{name}"


def topics_of_server() -> list[dict[str, str]]:
    """Return the extensions by which a CapabilityStatement names the topics."""
    url = extension_url("capabilitystatement-subscriptiontopic-canonical")
    return [{"url": url, "valueCanonical": topic} for topic in TOPICS]
