"""A finished job -> all its FHIR resources, inside the transaction that commits the results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import tzinfo

import sqlalchemy as sa
from sqlalchemy.engine import Connection

import gateway
from fhir_facade.about import About
from fhir_facade.codes import DCM
from fhir_facade.device import algorithm_id, algorithm_reference, algorithm_resource, gateway_id, gateway_resource
from fhir_facade.diagnostic_report import diagnostic_report_resource
from fhir_facade.identity import ResourceIds
from fhir_facade.imaging_study import (
    imaging_study_reference,
    imaging_study_resource,
    modalities,
    started,
)
from fhir_facade.index import index_entries, token_value
from fhir_facade.observation import Setting, observations, withdrawn
from fhir_facade.patient import patient_id, patient_reference, patient_resource
from fhir_facade.provenance import Role, provenance_resource
from fhir_facade.resource import Json, encode, parse, reference
from fhir_facade.timing import instant
from gateway.report.fhir_input import FhirInput
from gateway.store.results import FhirVersion, IndexEntry
from gateway.store.tables import fhir_resource, job


@dataclass(frozen=True, slots=True)
class FhirRenderer:
    """Renders finished jobs (`gateway.report.fhir_input.RenderFhir`).

    Parameters
    ----------
    ids
        The installation's ids (`fhir_facade.identity.installation_ids`).
    zone
        The site's zone, for studies without an offset; None: that of this machine.
    """

    ids: ResourceIds
    zone: tzinfo | None = None

    def __call__(self, connection: Connection, finished: FhirInput, /) -> Sequence[FhirVersion]:
        """Return the resources as they should stand from now on."""
        about = self._about(finished)
        report_id = self.ids.make("DiagnosticReport", finished.study.study_instance_uid, finished.job.bundle)
        found = self._observations(finished, about)
        report = diagnostic_report_resource(finished, report_id, about, found)
        replaced = _current_version(connection, report_id) if finished.replaces else None
        shared = self._shared(finished)
        provenance = self._provenance(finished, about, [report, *found], replaced)
        extra = _modality_entries(finished)
        return [
            *(self._version(content, finished) for content in shared),
            *(self._version(content, finished, extra) for content in (*found, report)),
            *(self._version(content, finished, extra) for content in _withdrawn(connection, finished, found)),
            self._version(provenance, finished, [_patient_entry(finished, self.ids)]),
        ]

    def _shared(self, finished: FhirInput) -> Iterator[Json]:
        """Yield the resources that other jobs have too; where they did not change, the store leaves them be."""
        yield patient_resource(finished.study, self.ids)
        yield imaging_study_resource(finished.study, finished.series, self.ids, self.zone)
        yield gateway_resource(gateway.__version__, self.ids)
        algorithms = {algorithm_id(each.algorithm, self.ids): each.algorithm for each in finished.outcomes}
        for algorithm in algorithms.values():
            yield algorithm_resource(algorithm, self.ids)

    def _about(self, finished: FhirInput) -> About:
        return About(
            subject=patient_reference(finished.study, self.ids),
            imaging_study=imaging_study_reference(finished.study, self.ids),
            effective=started(finished.study, self.zone),
            issued=instant(finished.now),
        )

    def _observations(self, finished: FhirInput, about: About) -> list[Json]:
        seen: Counter[str] = Counter()
        contents: list[Json] = []
        for ordinal, outcome in enumerate(finished.outcomes):
            series = outcome.series_instance_uid or ""
            setting = Setting(
                ids=self.ids,
                assignment=finished.assignment,
                ordinal=ordinal,
                subject_key=(finished.study.study_instance_uid, finished.job.bundle, series, str(seen[series])),
                about=about,
                device=algorithm_reference(outcome.algorithm, self.ids),
            )
            seen[series] += 1
            contents += observations(outcome, setting)
        return contents

    def _provenance(self, finished: FhirInput, about: About, targets: Sequence[Json], replaced: Json | None) -> Json:
        algorithms = {algorithm_id(each.algorithm, self.ids): each.algorithm for each in finished.outcomes}
        agents: list[tuple[Role, Json]] = [
            ("author", algorithm_reference(algorithm, self.ids)) for algorithm in algorithms.values()
        ]
        agents.append(("assembler", reference("Device", gateway_id(self.ids))))
        return provenance_resource(
            self.ids.make("Provenance", finished.job.job_id),
            about,
            [reference(each["resourceType"], each["id"]) for each in targets],
            agents,
            replaced,
        )

    def _version(self, content: Json, finished: FhirInput, extra: Sequence[IndexEntry] = ()) -> FhirVersion:
        is_of_study = content["resourceType"] not in {"Patient", "Device"}
        return FhirVersion(
            type=content["resourceType"],
            resource_id=content["id"],
            study_instance_uid=finished.study.study_instance_uid if is_of_study else None,
            body=encode(content),
            index=index_entries(content, self.zone, extra),
        )


def _modality_entries(finished: FhirInput) -> list[IndexEntry]:
    """Return the modalities of the series that were evaluated, of all series where none is named."""
    evaluated = {outcome.series_instance_uid for outcome in finished.outcomes}
    named = [each for each in finished.series if each.series_instance_uid in evaluated] or finished.series
    return [IndexEntry("modality", system=DCM, value=token_value(name)) for name in modalities(named)]


def _patient_entry(finished: FhirInput, ids: ResourceIds) -> IndexEntry:
    return IndexEntry("patient", system="Patient", value=patient_id(finished.study, ids))


def _current_version(connection: Connection, report_id: str) -> Json | None:
    """Return a reference to the version of the report that stands now."""
    query = sa.select(fhir_resource.c.version).where(
        fhir_resource.c.type == "DiagnosticReport",
        fhir_resource.c.resource_id == report_id,
        fhir_resource.c.is_current,
    )
    version = connection.scalar(query)
    if version is None:
        return None
    return {"reference": f"DiagnosticReport/{report_id}/_history/{version}"}


def _withdrawn(connection: Connection, finished: FhirInput, found: Sequence[Json]) -> Iterator[Json]:
    """Yield the Observations of earlier revisions that this one no longer makes."""
    kept = {content["id"] for content in found}
    query = (
        sa.select(fhir_resource.c.resource_id, fhir_resource.c.body)
        .join(job, job.c.id == fhir_resource.c.job_id)
        .where(
            fhir_resource.c.type == "Observation",
            fhir_resource.c.is_current,
            fhir_resource.c.study_instance_uid == finished.study.study_instance_uid,
            job.c.bundle == finished.job.bundle,
        )
        .order_by(fhir_resource.c.id)
    )
    for row in connection.execute(query):
        if row.resource_id not in kept:
            yield withdrawn(parse(row.body))
