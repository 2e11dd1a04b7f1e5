"""Finished jobs to render: findings with segments, measurements alone, not evaluable, and a second revision."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import sqlalchemy as sa
from fhir_facade.identity import ResourceIds
from fhir_facade.render import FhirRenderer
from fhir_facade.site import Site

from gateway.job import Claim
from gateway.report.assignment import Assignment
from gateway.report.fhir_input import FhirInput
from gateway.report.order import ImagingOrder
from gateway.store import Store
from gateway.store.results import DICOM, NewArtefact, write_resources
from gateway.store.studies import SeriesRow, StudyRow
from gateway.store.tables import job
from gateway.verification.verdict import Action, Verification
from inference.findings import (
    Algorithm,
    ClassProbability,
    Code,
    Finding,
    Findings,
    Measurement,
    NotEvaluable,
    Outcome,
    Segment,
    SourceFrame,
)
from tests.stores import add_series, add_study

STUDY_UID = "1.2.826.0.1.3680043.8.498.1"
SERIES_UID = "1.2.826.0.1.3680043.8.498.1.1"
NOW = datetime(2026, 3, 2, 13, 0, tzinfo=UTC)
SITE = Site(public_url="https://ai.hospital.example", institution="City Hospital")
RENDERER = FhirRenderer(ResourceIds(uuid.UUID("7a3f3c1e-58a2-4f53-9c5f-1d8f0f2f8f11")), zone=UTC)

ALGORITHM = Algorithm(
    name="cxr-pneumonia",
    version="1.0.0",
    manufacturer="HybridMed",
    family=Code("123109", "DCM", "Artificial Intelligence"),
    weights_digest="ab" * 32,
)
PNEUMONIA = Code("233604007", "SCT", "Pneumonia")
NORMAL = Code("17621005", "SCT", "Normal")
BACTERIAL = Code("53084003", "SCT", "Bacterial pneumonia")
VIRAL = Code("75570004", "SCT", "Viral pneumonia")
LUNG = Code("39607008", "SCT", "Lung structure")
ORDER = ImagingOrder(
    institution="City Hospital",
    institution_address="1 Main Street",
    procedure_id="RP-9",
    procedure="Thorax p.a.",
    procedure_code=Code("399208008", "SCT", "Plain chest X-ray"),
    placer_number="PL-1",
    reason="Fever",
)
MILLILITRE = Code("mL", "UCUM", "milliliter")


def study(**values: Any) -> StudyRow:
    """Return a chest X-ray study; `values` replace fields."""
    row = {
        "study_instance_uid": STUDY_UID,
        "patient_id": "P-17",
        "patient_id_issuer": "HOSPITAL-A",
        "patient_name": "Müller^Anna Maria^^Dr.",
        "patient_birth_date": "19700214",
        "patient_sex": "F",
        "accession_number": "ACC-1",
        "accession_issuer": "",
        "study_id": "1",
        "study_date": "20260301",
        "study_time": "093005.25",
        "timezone_offset": "+0100",
        "study_description": "Thorax",
        "referring_physician": "House^Gregory",
        "announced_count": None,
        "calling_ae": "CT1",
        "state": "routed",
        "state_reason": None,
        "priority": "routine",
        "revision": 1,
        "first_received_at": NOW,
        "last_received_at": NOW,
        "completed_at": NOW,
    }
    return StudyRow(**row | values)


def series(uid: str = SERIES_UID, modality: str = "DX", **values: Any) -> SeriesRow:
    """Return a series of one image; `values` replace fields."""
    row = {
        "study_instance_uid": STUDY_UID,
        "series_instance_uid": uid,
        "modality": modality,
        "body_part": "CHEST",
        "series_description": "PA",
        "series_number": 1,
        "series_date": "20260301",
        "series_time": "093010",
        "instance_count": 1,
        "newest_revision": 1,
        "is_own": False,
    }
    return SeriesRow(**row | values)


def finding(
    tracking_id: str, question: Code, probabilities: Sequence[tuple[str, Code, float]], parent_id: str | None = None
) -> Finding:
    """Return a finding whose answer is the most probable class."""
    classes = [ClassProbability(name, code, probability) for name, code, probability in probabilities]
    answer = max(classes, key=lambda each: each.probability)
    return Finding(tracking_id, tracking_id, question, answer, tuple(classes), site=LUNG, parent_id=parent_id)


def segment(tracking_id: str, label: str, *volumes: float) -> Segment:
    """Return a segment with volumes."""
    quantity = Code("118565006", "SCT", "Volume")
    return Segment(
        tracking_id=tracking_id,
        number=1,
        label=label,
        category=Code("123037004", "SCT", "Anatomical structure"),
        type=LUNG,
        mask=np.ones((1, 2, 2), dtype=bool),
        color_lab=(50.0, 0.0, 0.0),
        laterality=Code("7771000", "SCT", "Left"),
        measurements=tuple(Measurement(quantity, volume, MILLILITRE) for volume in volumes),
    )


def pneumonia(*, with_fine: bool = True) -> Findings:
    """Return a chest X-ray with pneumonia, bacterial, and a lung of 1234.5 mL."""
    coarse = finding("coarse", PNEUMONIA, [("normal", NORMAL, 0.03), ("pneumonia", PNEUMONIA, 0.97)])
    kind = Code("pneumonia-kind", "99HYBRIDMED", "Kind of pneumonia")
    fine = finding("fine", kind, [("bacterial", BACTERIAL, 0.9), ("viral", VIRAL, 0.1)], "coarse")
    return Findings(
        algorithm=ALGORITHM,
        series_instance_uid=SERIES_UID,
        frames=(SourceFrame("1.2.826.0.1.3680043.8.498.1.1.1"),),
        findings=(coarse, fine) if with_fine else (coarse,),
        segments=(segment("lung-left", "Left lung", 1234.5),),
    )


def lungs() -> Findings:
    """Return a chest CT with the volumes, the mean densities and the low attenuation shares of both lungs."""
    density = Measurement(Code("112031", "DCM", "Attenuation Coefficient"), -823.25, Code("[hnsf'U]", "UCUM", "HU"))
    share = Measurement(
        Code("LAA-950", "99HYBRIDMED", "Share of voxels below -950 HU"), 1.5, Code("%", "UCUM", "percent")
    )
    both = [segment("right-lung", "Right lung", 2134.5), segment("left-lung", "Left lung", 1934.5)]
    segments = tuple(replace(each, measurements=(*each.measurements, density, share)) for each in both)
    return replace(pneumonia(), algorithm=replace(ALGORITHM, name="ct-lung"), findings=(), segments=segments)


def not_evaluable() -> NotEvaluable:
    """Return an outcome that says nothing, with the reason."""
    return NotEvaluable(ALGORITHM, "projection", "lateral view, a frontal one was expected", SERIES_UID)


def finished(*outcomes: Outcome, revision: int = 1, bundle: str = "cxr-pneumonia", **values: Any) -> FhirInput:
    """Return a finished job; `values` replace fields."""
    job_id = uuid.uuid5(uuid.NAMESPACE_OID, f"{bundle}/{revision}")
    now = NOW + timedelta(hours=revision)
    given = values.pop("study", study())
    claim = Claim(
        job_id=str(job_id),
        study_instance_uid=given.study_instance_uid,
        study_revision=1,
        bundle=bundle,
        revision=revision,
        priority="routine",
        destinations=(),
        attempt=1,
        owner="w1",
        lease_expires_at=now,
    )
    report = NewArtefact(
        kind="sr-findings",
        ordinal=0,
        variant="",
        media_type="application/dicom",
        study_instance_uid=given.study_instance_uid,
        series_instance_uid="2.25.5",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.88.34",
        sop_instance_uid=f"2.25.7{revision}",
        path="results/x.dcm",
        digest="00",
        size_bytes=1,
    )
    whole = FhirInput(
        job=claim,
        assignment=Assignment(job_id, revision, given.study_instance_uid, now),
        study=given,
        series=[series()],
        instances=[],
        outcomes=outcomes,
        artefacts=[report],
        pictures=[],
        now=now,
        replaces=revision > 1,
    )
    return replace(whole, **values)


def artefact(kind: str, job_done: FhirInput, media_type: str = DICOM) -> NewArtefact:
    """Return a row of a job's result files; a DICOM object has a UID that the kind and the job tell."""
    is_dicom = media_type == DICOM
    name = f"{kind}/{job_done.job.revision}"
    return NewArtefact(
        kind=kind,
        ordinal=0,
        variant="",
        media_type=media_type,
        study_instance_uid=job_done.study.study_instance_uid,
        series_instance_uid="2.25.6" if is_dicom else None,
        sop_class_uid="1.2.840.10008.5.1.4.1.1.66.4" if is_dicom else None,
        sop_instance_uid=f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, name).int}" if is_dicom else None,
        path=f"results/{kind}",
        digest=hashlib.sha256(name.encode()).hexdigest(),
        size_bytes=12345,
    )


def whole(*outcomes: Outcome, **values: Any) -> FhirInput:
    """Return a finished job with everything that a worker leaves: reports, segmentation, pictures, documents, order."""
    job_done = finished(*outcomes, **{"order": ORDER} | values)
    kinds = {"sr-findings": DICOM, "sr-measurements": DICOM, "seg": DICOM}
    kinds |= {"picture-overlay": "image/png", "picture-heatmap-pneumonia": "image/png"}
    kinds |= {f"document-html-{tag}": "text/html" for tag in ("en", "zh")}
    kinds |= {f"document-pdf-{tag}": "application/pdf" for tag in ("en", "zh")}
    made = [artefact(kind, job_done, media_type) for kind, media_type in kinds.items()]
    return replace(job_done, artefacts=[each for each in made if outcomes or each.media_type != "image/png"])


def word(action: Action, now: datetime, *corrections: Mapping[str, Any]) -> Verification:
    """Return what a person said."""
    return Verification(
        action, "Curie^Marie^^Dr.", "Institut du Radium", "seen", now, str(uuid.uuid4()), "00", corrections
    )


def commit(store: Store, job_done: FhirInput, renderer: FhirRenderer = RENDERER) -> int:
    """Render a job and write its resources as the worker does; return how many were written."""
    with store.write() as connection:
        _add_job(connection, job_done)
        resources = renderer(connection, job_done)
        return write_resources(connection, resources, job_done.now, job_id=job_done.job.job_id)


def _add_job(connection: sa.Connection, job_done: FhirInput) -> None:
    uid = job_done.study.study_instance_uid
    is_known = connection.execute(sa.select(job.c.id).where(job.c.study_instance_uid == uid)).first() is not None
    word = job_done.verification
    if not is_known:
        add_study(connection, uid)
        add_series(connection, uid, f"{uid}.1", "DX")
    claim = job_done.job
    row = {
        "id": claim.job_id,
        "study_instance_uid": uid,
        "study_revision": 1,
        "bundle": claim.bundle,
        "revision": claim.revision,
        "state": "done",
        "priority": "routine",
        "destinations": [],
        "attempts": 1,
        "available_at": job_done.now,
        "requested_by": "dispatch",
        "created_at": job_done.now,
        "verification": word.as_json() if word else None,
    }
    connection.execute(sa.insert(job).values(**row))
