"""A finished job -> all its FHIR resources, inside the transaction that commits the results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from typing import Any

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
from fhir_facade.standing import Standing, organisation, practitioner
from fhir_facade.timing import instant
from gateway.report.fhir_input import FhirInput
from gateway.store.results import FhirVersion, IndexEntry
from gateway.store.tables import fhir_resource, job
from gateway.store.verifications import words_before
from gateway.verification.verdict import read_verification
from inference.findings import Findings, Outcome


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
        standing = _standing(connection, finished)
        keys, statuses = self._finding_keys(finished, about), _statuses(connection, finished)
        found = [
            standing.observation(each, keys.get(each["id"]), statuses.get(each["id"]))
            for each in self._observations(finished, about)
        ]
        report = diagnostic_report_resource(finished, report_id, about, found, standing)
        replaced = _current_version(connection, report_id) if finished.replaces else None
        # A verification says nothing new of patient, images and devices.
        shared = self._shared(finished) if finished.verification is None else ()
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
        return [
            content
            for outcome, setting in self._settings(finished, about)
            for content in observations(outcome, setting)
        ]

    def _finding_keys(self, finished: FhirInput, about: About) -> dict[str, tuple[int, str]]:
        """Return the ids of the Observations that tell findings, with ordinal and tracking identifier."""
        return {
            setting.observation_id("finding", each.tracking_id): (setting.ordinal, each.tracking_id)
            for outcome, setting in self._settings(finished, about)
            if isinstance(outcome, Findings)
            for each in outcome.findings
        }

    def _settings(self, finished: FhirInput, about: About) -> Iterator[tuple[Outcome, Setting]]:
        seen: Counter[str] = Counter()
        for ordinal, outcome in enumerate(finished.outcomes):
            series = outcome.series_instance_uid or ""
            yield (
                outcome,
                Setting(
                    ids=self.ids,
                    assignment=finished.assignment,
                    ordinal=ordinal,
                    subject_key=(finished.study.study_instance_uid, finished.job.bundle, series, str(seen[series])),
                    about=about,
                    device=algorithm_reference(outcome.algorithm, self.ids),
                ),
            )
            seen[series] += 1

    def _provenance(self, finished: FhirInput, about: About, targets: Sequence[Json], replaced: Json | None) -> Json:
        algorithms = {algorithm_id(each.algorithm, self.ids): each.algorithm for each in finished.outcomes}
        agents: list[tuple[Role, Json, Json | None]] = [
            ("author", algorithm_reference(algorithm, self.ids), None) for algorithm in algorithms.values()
        ]
        agents.append(("assembler", reference("Device", gateway_id(self.ids)), None))
        if finished.verification is not None:
            who = finished.verification.who
            agents.append(("verifier", practitioner(who), organisation(who)))
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


def _standing(connection: Connection, finished: FhirInput) -> Standing:
    """Return what persons said up to now of this study and bundle."""
    job_done = finished.job
    words = words_before(connection, finished.study.study_instance_uid, job_done.bundle, job_done.revision)
    before = [None if word is None else read_verification(word) for word in words]
    if finished.replaces and not before:
        before = [None]
    return Standing(finished.verification, before)


def _statuses(connection: Connection, finished: FhirInput) -> dict[str, str]:
    """Return the status that each Observation of earlier revisions has now."""
    return {row.resource_id: parse(row.body)["status"] for row in connection.execute(_observations_of(finished))}


def _observations_of(finished: FhirInput) -> sa.Select[Any]:
    """Return the query for the current Observations of a study and bundle."""
    return (
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
    for row in connection.execute(_observations_of(finished)):
        if row.resource_id not in kept:
            yield withdrawn(parse(row.body))
