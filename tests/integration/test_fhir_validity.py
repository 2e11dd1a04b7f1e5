"""Every resource that is rendered, checked by R4 validators that share no code with fhir.resources."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from fhir_facade.capability import capability_statement
from fhir_facade.paging import page_token
from fhir_facade.search import Page, Row, understand
from fhir_facade.searchset import searchset

from gateway.report.fhir_input import FhirInput
from gateway.store import open_store
from gateway.store.tables import fhir_resource
from tests.unit.fhir import cases, node

HOSTILE_NAME = "X" * 300 + "^\x00\x1b[31m <script>&amp;" + "=漢^字=かん"


TYPES = {"Patient", "ImagingStudy", "Device", "Observation", "DiagnosticReport", "Provenance"}


def written(jobs: list[FhirInput], folder: Path, empty: Path) -> list[dict[str, Any]]:
    """Return all versions of all resources that these jobs leave in a fresh database."""
    folder.mkdir()
    shutil.copyfile(empty, folder / "hybridmed.db")
    store = open_store(f"sqlite:///{folder / 'hybridmed.db'}", folder)
    for job_done in jobs:
        cases.commit(store, job_done)
    with store.read() as connection:
        bodies = list(connection.execute(sa.select(fhir_resource.c.body)).scalars())
    store.close()
    return [json.loads(body) for body in bodies]


def bare_study() -> FhirInput:
    """Return a job over a study that says nothing of itself, or nonsense."""
    bare = dict.fromkeys(("patient_id", "patient_sex", "accession_number", "study_description", "timezone_offset"), "")
    odd = {"patient_birth_date": "19991332", "study_date": "2026", "study_time": "noon", "patient_name": HOSTILE_NAME}
    given = cases.study(**bare | odd | {"referring_physician": "^^"})
    odd_series = cases.series(modality="", body_part=" ", series_number=-4, series_date="00000000")
    return cases.finished(cases.not_evaluable(), study=given, series=[odd_series])


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
}


def test_every_resource_is_valid_r4(tmp_path: Path, migrated_sqlite: Path) -> None:
    """Two independent validators find no error in any version of any resource."""
    resources = [
        resource for name, jobs in CASES.items() for resource in written(jobs, tmp_path / name, migrated_sqlite)
    ]

    assert {each["resourceType"] for each in resources} == TYPES
    assert node.complaints(resources, tmp_path) == []


def test_what_the_server_says_of_itself_is_valid_r4(tmp_path: Path) -> None:
    """CapabilityStatement, a searchset with entries and an empty one pass the validators."""
    search = understand("Patient", [("name", "müller"), ("_count", "1")], is_strict=True)
    row = Row("a", b'{"resourceType":"Patient","id":"a"}')
    documents = [
        capability_statement("http://localhost/fhir", datetime(2026, 1, 1, tzinfo=UTC)),
        searchset("http://localhost/fhir", search, Page(2, (row,), page_token([7]))),
        searchset("http://localhost/fhir", search, Page(0, (), None)),
    ]

    assert node.complaints([json.loads(each) for each in documents], tmp_path) == []


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

    for named in ("status Code", "Invalid type for reference", "obs-6", "nonsense"):
        assert any(named in complaint for complaint in found)
