"""What the FHIR renderer is given: all that is known of one finished job, as values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from sqlalchemy.engine import Connection

from gateway.job import Claim
from gateway.report.assignment import Assignment
from gateway.report.order import NO_ORDER, ImagingOrder
from gateway.store.results import FhirVersion, NewArtefact
from gateway.store.studies import InstanceRow, SeriesRow, StudyRow
from gateway.verification.verdict import Verification
from inference.findings import Outcome


@dataclass(frozen=True, slots=True, eq=False)
class FhirInput:
    """One finished job, its study, its outcomes and what was rendered from them."""

    job: Claim
    assignment: Assignment
    """The rendering: the tracking UIDs in SR and SEG derive from it (`gateway.report.assignment.derived_uid`).

    Of a verification that of the algorithm's result, whose tracking UIDs stay.
    """
    study: StudyRow
    series: Sequence[SeriesRow]
    """All series of the study."""
    instances: Sequence[InstanceRow]
    """The current instances of the study, of every series."""
    outcomes: Sequence[Outcome]
    """What the model said; the position in it is the `ordinal` of the artefacts."""
    artefacts: Sequence[NewArtefact]
    """DICOM objects, pictures and documents, of every variant; variant '' is the one served here."""
    pictures: Sequence[Mapping[str, bytes]]
    """For each outcome its PNG pictures by name."""
    now: datetime
    """Aware; the time of the commit."""
    replaces: bool
    """Whether an earlier revision of this study and bundle is done: the reports become `amended`."""
    order: ImagingOrder = NO_ORDER
    """What the images say of order and institution."""
    verification: Verification | None = None
    """What a person said, where that is what made this revision; `outcomes` are then as the person left them."""


class RenderFhir(Protocol):
    """Findings -> FHIR resources; called inside the transaction that commits the results."""

    def __call__(self, connection: Connection, finished: FhirInput, /) -> Sequence[FhirVersion]:
        """Return the resources to write; what is equal to its current version is left out by the store."""
