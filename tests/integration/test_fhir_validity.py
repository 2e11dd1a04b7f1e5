"""Every resource that is rendered, checked by validators of R4, XML and R5 that share no code with what renders it."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import sqlalchemy as sa
from fhir.resources import get_fhir_model_class
from fhir_facade.negotiation import Representation
from fhir_facade.representation import represent
from fhir_facade.xml_reader import read_xml

from gateway.report.fhir_input import FhirInput
from gateway.report.order import ImagingOrder
from gateway.store import open_store
from gateway.store.tables import fhir_resource
from gateway.verification.verdict import Action
from tests.unit.fhir import cases, node

HOSTILE_NAME = "X" * 300 + "^\x00\x1b[31m <script>&amp;" + "=漢^字=かん"


TYPES = {
    *("Patient", "ImagingStudy", "Device", "Observation", "DiagnosticReport", "Provenance"),
    *("Media", "ServiceRequest", "Organization", "Endpoint"),
}


def written(jobs: list[FhirInput], folder: Path, empty: Path) -> list[bytes]:
    """Return all versions of all resources that these jobs leave in a fresh database."""
    folder.mkdir()
    shutil.copyfile(empty, folder / "hybridmed.db")
    store = open_store(f"sqlite:///{folder / 'hybridmed.db'}", folder)
    for job_done in jobs:
        cases.commit(store, job_done, replace(cases.RENDERER, site=cases.SITE))
    with store.read() as connection:
        bodies = list(connection.execute(sa.select(fhir_resource.c.body)).scalars())
    store.close()
    return bodies


def bare_study() -> FhirInput:
    """Return a job over a study that says nothing of itself, or nonsense."""
    bare = dict.fromkeys(("patient_id", "patient_sex", "accession_number", "study_description", "timezone_offset"), "")
    odd = {"patient_birth_date": "19991332", "study_date": "2026", "study_time": "noon", "patient_name": HOSTILE_NAME}
    given = cases.study(**bare | odd | {"referring_physician": "^^"})
    odd_series = cases.series(modality="", body_part=" ", series_number=-4, series_date="00000000")
    return cases.finished(cases.not_evaluable(), study=given, series=[odd_series])


def said(action: Action, *corrections: Mapping[str, Any]) -> FhirInput:
    """Return a second revision that is a person's word on the first, with the documents that were written anew."""
    word = cases.word(action, cases.NOW, *corrections)
    job_done = cases.whole(cases.pneumonia(), revision=2, verification=word)
    kept = [each for each in job_done.artefacts if each.media_type != "image/png" and each.kind != "seg"]
    return replace(job_done, artefacts=kept)


CASES: dict[str, list[FhirInput]] = {
    "findings": [cases.finished(cases.pneumonia())],
    "measurements alone": [
        cases.finished(replace(cases.pneumonia(), findings=()), series=[cases.series(modality="MR")])
    ],
    "a measurement that is no number": [
        cases.finished(replace(cases.pneumonia(), segments=(cases.segment("s", "Lung", math.nan, 0.0),)))
    ],
    "nothing found": [cases.finished(replace(cases.pneumonia(), findings=(), segments=()))],
    "not evaluable": [cases.finished(cases.not_evaluable())],
    "no outcome names a series": [cases.finished(replace(cases.not_evaluable(), series_instance_uid=None))],
    "amended": [cases.finished(cases.pneumonia()), cases.finished(cases.pneumonia(with_fine=False), revision=2)],
    "amended to not evaluable": [cases.finished(cases.pneumonia()), cases.finished(cases.not_evaluable(), revision=2)],
    "bare study": [bare_study()],
    "a volume with measurements": [cases.whole(cases.lungs(), series=[cases.series(modality="CT")], bundle="ct-lung")],
    "with all that a worker leaves": [cases.whole(cases.pneumonia(), cases.not_evaluable())],
    "accepted": [cases.whole(cases.pneumonia()), said("accept")],
    "accepted, then processed anew": [
        cases.whole(cases.pneumonia()),
        said("accept"),
        cases.whole(cases.pneumonia(with_fine=False), revision=3),
    ],
    "corrected": [
        cases.whole(cases.pneumonia()),
        said("correct", {"ordinal": 0, "id": "fine", "answer": "viral", "was": "bacterial", "probability": 0.9}),
    ],
    "rejected": [cases.whole(cases.pneumonia()), said("reject")],
    "an order without a code": [cases.whole(cases.pneumonia(), order=ImagingOrder(procedure="Thorax"))],
}


@pytest.fixture(scope="module")
def bodies(tmp_path_factory: pytest.TempPathFactory, migrated_sqlite: Path) -> list[bytes]:
    """Give all versions of all resources of all cases."""
    folder = tmp_path_factory.mktemp("cases")
    return [body for name, jobs in CASES.items() for body in written(jobs, folder / name, migrated_sqlite)]


def test_every_resource_is_valid_r4(bodies: list[bytes], tmp_path: Path) -> None:
    """Two independent validators find no error in any version of any resource."""
    resources = [json.loads(body) for body in bodies]

    assert {each["resourceType"] for each in resources} == TYPES
    assert node.complaints(resources, tmp_path) == []


def test_every_resource_is_the_same_in_xml(bodies: list[bytes], tmp_path: Path) -> None:
    """Another library reads from our XML what we stored, and writes the XML that we wrote: the same order."""
    ours = [represent(body, Representation("xml")).decode() for body in bodies]
    # Numbers as text: the library keeps the digits of neither direction otherwise.
    resources = [json.loads(body, parse_float=str, parse_int=str) for body in bodies]

    theirs = node.convert([{"json": each, "xml": xml} for each, xml in zip(resources, ours, strict=True)], tmp_path)

    assert [json.loads(json.dumps(each["json"]), parse_int=str) for each in theirs] == resources
    for xml, each in zip(ours, theirs, strict=True):
        assert ElementTree.canonicalize(xml) == ElementTree.canonicalize(each["xml"], strip_text=True)


def test_every_resource_is_valid_r5(bodies: list[bytes], tmp_path: Path) -> None:
    """As R5 each passes the R5 models and types that are made from the R5 definitions; the XML says the same."""
    r5, r5_xml = Representation("json", "5.0"), Representation("xml", "5.0")
    resources = [json.loads(represent(body, r5)) for body in bodies]

    for body, resource in zip(bodies, resources, strict=True):
        get_fhir_model_class(resource["resourceType"]).model_validate(resource)
        assert json.loads(read_xml(represent(body, r5_xml), "5.0")) == resource
    assert node.complaints_of_r5(different(resources), tmp_path) == []


def different(resources: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one of the resources with the same elements: the compiler takes its time."""
    return list({(each["resourceType"], *sorted(each)): each for each in resources}.values())


def test_the_validators_see_mistakes(tmp_path: Path) -> None:
    """The proof can fail: a wrong code, a wrong reference, a broken invariant and an unknown element are each named."""
    mistakes = [
        {"resourceType": "Observation", "status": "prelim", "code": {"text": "x"}},
        {"resourceType": "Observation", "status": "final", "code": {"text": "x"}, "device": {"reference": "Patient/1"}},
        {
            "resourceType": "Observation",
            "status": "final",
            "code": {"text": "x"},
            "valueString": "x",
            "dataAbsentReason": {"text": "y"},
        },
        {"resourceType": "Patient", "nonsense": 1},
    ]

    found = node.complaints(mistakes, tmp_path)

    assert any("nonsense" in complaint for complaint in node.complaints_of_r5(mistakes[3:], tmp_path))
    for named in ("status Code", "Invalid type for reference", "obs-6", "nonsense"):
        assert any(named in complaint for complaint in found)
