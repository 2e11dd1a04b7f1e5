"""What the tests of verification stand on: results of a real or made study, as the worker leaves them."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pydicom
import sqlalchemy as sa
from fhir_facade.identity import ResourceIds
from fhir_facade.render import FhirRenderer
from pydicom.dataset import Dataset

from gateway.config import Destination
from gateway.report import render_outcome
from gateway.store import Store, jobs
from gateway.store.results import DICOM, list_artefacts
from gateway.store.tables import fhir_resource
from gateway.verification.verdict import Verdict, read_verdict
from gateway.verification.verify import Verifier
from gateway.worker import Renderers
from gateway.worker.execution import Execution
from inference.findings import Algorithm, Findings, Outcome
from tests.stores import add_instance
from tests.unit.report.outcomes import xray_findings
from tests.working import add_job, take_in

BUNDLE = "cxr-pneumonia"
RENDER_FHIR = FhirRenderer(ResourceIds(uuid.UUID("7a3f3c1e-58a2-4f53-9c5f-1d8f0f2f8f11")), zone=UTC)
FIELDS = {"observer": "Curie Marie", "organisation": "Institut du Radium"}


def told(outcome: Findings) -> Findings:
    """Say of each class whether it is positive, as bundles do."""
    levels = []
    for each in outcome.findings:
        classes = tuple(replace(one, is_positive=one.name != "normal") for one in each.alternatives)
        answer = next(one for one in classes if one.name == each.answer.name)
        levels.append(replace(each, alternatives=classes, answer=answer))
    return replace(outcome, findings=tuple(levels))


OUTCOME = told(xray_findings(heat_maps=False))


class Answering:
    """A model that gives the outcomes it was given."""

    def __init__(self, outcomes: Sequence[Outcome]) -> None:
        self.algorithm: Algorithm = outcomes[0].algorithm
        self._outcomes = outcomes

    def wants(self, modality: str, body_part: str, description: str, /) -> bool:
        """Take all."""
        return True

    def prepare(self, series: Sequence[Sequence[Path]], /) -> Callable[[], Sequence[Outcome]]:
        """Look at nothing."""
        return lambda: self._outcomes


def take_in_all(store: Store, files: Sequence[Path]) -> str:
    """Put the files of one study into the store; return its UID."""
    uid = take_in(store, files[0])
    for file in files[1:]:
        _take_in_another(store, file)
    return uid


def work(store: Store, study_uid: str, outcome: Outcome, to: Sequence[Destination] = ()) -> str:
    """Do a job as the worker does, with this outcome; return its id."""
    job_id = add_job(store, study_uid, bundle=BUNDLE, to=[one.name for one in to])
    with store.write() as connection:
        claim = jobs.claim(connection, job_id, "w1", datetime.now(UTC), 60)
    assert claim is not None
    renderers = Renderers(render_outcome, lambda _outcome, _sources: {"overlay": b"png"}, RENDER_FHIR)
    execution = Execution(store, lambda _: Answering([outcome]), renderers, to, lambda: datetime.now(UTC))
    prepared = execution.prepare(claim)
    assert execution.commit(prepared, execution.complete(prepared, execution.publish(prepared, (outcome,))))
    return job_id


def verifier(store: Store) -> Verifier:
    """Return what verifies."""
    return Verifier(store, RENDER_FHIR)


def verdict(job_id: str, action: str, fields: Mapping[str, str] | None = None) -> Verdict:
    """Return a verdict of Marie Curie; `fields` as in the form."""
    return read_verdict({**FIELDS, "job_id": job_id, "action": action, **(fields or {})})


def files_of(store: Store, job_id: str, variant: str = "") -> dict[str, Path]:
    """Return the DICOM files of a job by kind."""
    with store.read() as connection:
        artefacts = list_artefacts(connection, job_id)
    return {
        each.kind: store.data_dir / each.path
        for each in artefacts
        if each.media_type == DICOM and each.variant == variant
    }


def objects_of(store: Store, job_id: str, variant: str = "") -> dict[str, Dataset]:
    """Return the DICOM objects of a job by kind."""
    return {kind: pydicom.dcmread(path) for kind, path in files_of(store, job_id, variant).items()}


def resources(store: Store, kind: str, *, is_current: bool = True) -> list[dict[str, Any]]:
    """Return the resources of a type, the current versions or all, in the order written."""
    query = sa.select(fhir_resource.c.body).where(fhir_resource.c.type == kind)
    if is_current:
        query = query.where(fhir_resource.c.is_current)
    with store.read() as connection:
        return [orjson.loads(body) for body in connection.scalars(query.order_by(fhir_resource.c.id))]


def _take_in_another(store: Store, file: Path) -> None:
    dataset = pydicom.dcmread(file, stop_before_pixels=True)
    target = store.data_dir / "instances" / file.name
    target.write_bytes(file.read_bytes())
    with store.write() as connection:
        add_instance(
            connection,
            str(dataset.StudyInstanceUID),
            dataset.SeriesInstanceUID,
            dataset.SOPInstanceUID,
            path=f"instances/{file.name}",
            sop_class_uid=dataset.SOPClassUID,
        )
