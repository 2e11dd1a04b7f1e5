"""A finished job -> all its FHIR resources, inside the transaction that commits the results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from pathlib import Path

from sqlalchemy.engine import Connection

from fhir_facade import current
from fhir_facade.about import About
from fhir_facade.attachment import attachment
from fhir_facade.codes import DCM
from fhir_facade.demographics import Patients
from fhir_facade.device import algorithm_id, algorithm_reference, algorithm_resource
from fhir_facade.diagnostic_report import Attached, diagnostic_report_resource
from fhir_facade.gateway_device import gateway_id
from fhir_facade.identity import ResourceIds
from fhir_facade.imaging_study import modalities
from fhir_facade.index import token_value
from fhir_facade.media import Pictured, media_link, media_resource, pictures_of
from fhir_facade.observation import Setting, observations
from fhir_facade.patient import patient_id
from fhir_facade.provenance import Activity, Role, provenance_resource
from fhir_facade.resource import Json, reference
from fhir_facade.shared import Premises
from fhir_facade.site import UNKNOWN_SITE, Site
from fhir_facade.standing import organisation, practitioner
from fhir_facade.version import new_version
from gateway.report.fhir_input import FhirInput
from gateway.store.results import FhirVersion, IndexEntry, NewArtefact
from inference.findings import Findings, Outcome

_OF_STUDY = frozenset({"DiagnosticReport", "Observation", "ImagingStudy", "Media", "Provenance", "ServiceRequest"})
_DOCUMENT = "document-"
_TITLES = {"en": "AI report, not for diagnosis", "zh": "AI 报告,不用于诊断"}
_OBJECTS = ("seg", "sr-findings", "sr-measurements")


@dataclass(frozen=True, slots=True)
class FhirRenderer:
    """Renders finished jobs (`gateway.report.fhir_input.RenderFhir`).

    Parameters
    ----------
    ids
        The installation's ids (`fhir_facade.identity.installation_ids`).
    zone
        The site's zone, for studies without an offset; None: that of this machine.
    site
        Addresses and institution.
    data_dir
        Where result files lie, for their hashes; None: attachments have none.
    """

    ids: ResourceIds
    zone: tzinfo | None = None
    site: Site = UNKNOWN_SITE
    data_dir: Path | None = None

    def __call__(self, connection: Connection, finished: FhirInput, /) -> Sequence[FhirVersion]:
        """Return the resources as they should stand from now on."""
        about = self._about(finished)
        report_id = self.ids.make("DiagnosticReport", finished.study.study_instance_uid, finished.job.bundle)
        standing = current.standing_of(connection, finished)
        keys, statuses = self._finding_keys(finished, about), current.statuses(connection, finished)
        objects = current.objects_of(connection, finished)
        found = [
            standing.observation(each, keys.get(each["id"]), statuses.get(each["id"]))
            for each in self._observations(finished, about, objects)
        ]
        earlier = current.current_report(connection, report_id) or {}
        media = self._media(finished, about)
        links = [media_link(each["id"], picture) for each, picture in media]
        if not links and _leaves_segments(finished):
            # A person's word draws no picture anew where nothing was removed: those that stand are true.
            links = earlier.get("media", [])
        attached = Attached(forms=self._forms(finished, about), media=links)
        report = diagnostic_report_resource(finished, report_id, about, found, standing, attached)
        replaced = _version_of(earlier) if finished.replaces and earlier else None
        # A verification says nothing new of patient, images and devices.
        rendered = self._shared(finished) if finished.verification is None else ()
        shared = Patients(self.ids).beside_images(connection, rendered, finished.study, finished.now)
        provenance = self._provenance(finished, about, [report, *found], replaced)
        kept = {each["id"] for each in found} | {
            each["link"]["reference"].removeprefix("Media/") for each in report.get("media", ())
        }
        extra = _modality_entries(finished)
        pictures = [content for content, _ in media if content["id"] in kept]
        return [
            *(self._version(content, finished) for content in (*shared, *pictures)),
            *(self._version(content, finished, extra) for content in (*found, report)),
            *(self._version(each, finished, extra) for each in current.withdrawn_of(connection, finished, kept)),
            self._version(provenance, finished, [_patient_entry(finished, self.ids)]),
        ]

    @property
    def _premises(self) -> Premises:
        return Premises(self.ids, self.zone, self.site)

    def _shared(self, finished: FhirInput) -> Iterator[Json]:
        """Yield the resources that other jobs have too; where they did not change, the store leaves them be."""
        yield from self._premises.resources(finished.study, finished.series, finished.order)
        algorithms = {algorithm_id(each.algorithm, self.ids): each.algorithm for each in finished.outcomes}
        for algorithm in algorithms.values():
            yield algorithm_resource(algorithm, self.ids)

    def _about(self, finished: FhirInput) -> About:
        return self._premises.about(finished.study, finished.order, finished.now)

    def _read(self, artefact: NewArtefact) -> bytes | None:
        if self.data_dir is None:
            return None
        try:
            return (self.data_dir / artefact.path).read_bytes()
        except OSError:
            return None

    def _forms(self, finished: FhirInput, about: About) -> list[Json]:
        """Return the documents as attachments."""
        documents = [each for each in finished.artefacts if each.kind.startswith(_DOCUMENT)]
        return [
            attachment(
                finished.job.job_id,
                each,
                self._read,
                title=_TITLES.get(each.kind.rpartition("-")[2], _TITLES["en"]),
                created=about.issued,
            )
            for each in documents
        ]

    def _media(self, finished: FhirInput, about: About) -> list[tuple[Json, NewArtefact]]:
        """Return the pictures, each with the file that holds it."""
        devices = [algorithm_reference(each.algorithm, self.ids) for each in finished.outcomes]
        shared = Pictured(finished, about, devices, self._read)
        study, bundle = finished.study.study_instance_uid, finished.job.bundle
        return [
            (media_resource(self.ids.make("Media", study, bundle, str(each.ordinal), each.kind), each, shared), each)
            for each in pictures_of(finished)
        ]

    def _observations(self, finished: FhirInput, about: About, objects: Sequence[NewArtefact]) -> list[Json]:
        return [
            content
            for outcome, setting in self._settings(finished, about, objects)
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

    def _settings(
        self, finished: FhirInput, about: About, objects: Sequence[NewArtefact] = ()
    ) -> Iterator[tuple[Outcome, Setting]]:
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
                    objects=_uids(objects, ordinal),
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
            _activity(finished),
            list(dict.fromkeys(each.series_instance_uid for each in finished.outcomes if each.series_instance_uid)),
        )

    def _version(self, content: Json, finished: FhirInput, extra: Sequence[IndexEntry] = ()) -> FhirVersion:
        is_of_study = content["resourceType"] in _OF_STUDY
        uid = finished.study.study_instance_uid if is_of_study else None
        return new_version(content, self.zone, uid, extra)


def _modality_entries(finished: FhirInput) -> list[IndexEntry]:
    """Return the modalities of the series that were evaluated, of all series where none is named."""
    evaluated = {outcome.series_instance_uid for outcome in finished.outcomes}
    named = [each for each in finished.series if each.series_instance_uid in evaluated] or finished.series
    return [IndexEntry("modality", system=DCM, value=token_value(name)) for name in modalities(named)]


def _patient_entry(finished: FhirInput, ids: ResourceIds) -> IndexEntry:
    return IndexEntry("patient", system="Patient", value=patient_id(finished.study, ids))


def _leaves_segments(finished: FhirInput) -> bool:
    """Say whether this is a person's word that removes no segment."""
    word = finished.verification
    return word is not None and not any(each.get("is_removed") for each in word.corrections)


def _version_of(report: Json) -> Json:
    return {"reference": f"DiagnosticReport/{report['id']}/_history/{report['meta']['versionId']}"}


def _activity(finished: FhirInput) -> Activity:
    word = finished.verification
    if word is not None and word.action == "reject":
        return "NULLIFY"
    return "UPDATE" if word is not None or finished.replaces else "CREATE"


def _uids(objects: Sequence[NewArtefact], ordinal: int) -> Mapping[str, str]:
    """Return the SOP Instance UIDs of an outcome's DICOM results by kind, the newest of each."""
    return {
        each.kind: each.sop_instance_uid
        for each in objects
        if each.ordinal == ordinal and each.kind in _OBJECTS and not each.variant and each.sop_instance_uid
    }
