"""What all resources of one job share: whom they are about, what was evaluated, and when."""

from __future__ import annotations

from dataclasses import dataclass

from fhir_facade.resource import Json


@dataclass(frozen=True, slots=True)
class About:
    """References and times."""

    subject: Json
    """Reference to the Patient."""
    imaging_study: Json
    """Reference to the ImagingStudy."""
    effective: str | None
    """When the study was made, as a FHIR date or dateTime; None where it does not say."""
    issued: str
    """When the result was made, as a FHIR instant."""
    order: Json | None = None
    """Reference to the ServiceRequest; None where the images name no order."""
    institution: Json | None = None
    """Reference to the Organization that answers for the report."""
