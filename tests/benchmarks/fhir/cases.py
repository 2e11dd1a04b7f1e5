"""What is asked, and of which reports."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import urlencode

from tests.benchmarks.fhir.bare import COUNT
from tests.benchmarks.fhir.filling import DAYS, FIRST_DAY, REPORTS_PER_PATIENT

_WINDOW_DAYS = 60
SLOWEST_S = 1.0


@dataclass(frozen=True)
class Asked:
    """One request to each server."""

    fhir: str
    bare: str


def _search(pairs: list[tuple[str, str]], case: str, **values: str) -> Asked:
    query = urlencode([*pairs, ("_count", str(COUNT))])
    return Asked(f"/fhir/DiagnosticReport?{query}", f"/bare/{case}?{urlencode({**values, 'query': query})}")


def _read(chance: random.Random, count: int) -> Asked:
    resource_id = f"rep-{chance.randint(1, count)}"
    return Asked(f"/fhir/DiagnosticReport/{resource_id}", f"/bare/read/{resource_id}")


def _patient(chance: random.Random, count: int) -> Asked:
    value = f"pat-{chance.randint(1, count // REPORTS_PER_PATIENT)}"
    return _search([("patient", value)], "patient", value=value)


def _date(chance: random.Random, _count: int) -> Asked:
    low = FIRST_DAY + timedelta(days=chance.randint(0, DAYS - _WINDOW_DAYS - 1))
    high = low + timedelta(days=_WINDOW_DAYS)
    pairs = [("date", f"ge{low.date()}"), ("date", f"lt{high.date()}")]
    return _search(pairs, "date", low=low.isoformat(), high=high.isoformat())


def _code(chance: random.Random, _count: int) -> Asked:
    value = chance.choice(("24627-2", "30745-4"))
    return _search([("code", value)], "code", value=value)


def _chained(chance: random.Random, count: int) -> Asked:
    value = f"P-{chance.randint(1, count // REPORTS_PER_PATIENT)}"
    return _search([("patient.identifier", value)], "chained", value=value)


def _include(chance: random.Random, _count: int) -> Asked:
    value = chance.choice(("24627-2", "30745-4"))
    includes = [("_include", "DiagnosticReport:subject"), ("_include", "DiagnosticReport:result")]
    return _search([("code", value), *includes], "include", value=value)


CASES: Mapping[str, Callable[[random.Random, int], Asked]] = {
    "read": _read,
    "patient": _patient,
    "date": _date,
    "code": _code,
    "chained": _chained,
    "include": _include,
}
EVERY_KIND = (
    "DiagnosticReport",
    "DiagnosticReport?_sort=-date",
    "DiagnosticReport?_sort=date&_count=500",
    "DiagnosticReport?_sort=-_lastUpdated",
    "DiagnosticReport?_sort=status,-date",
    "DiagnosticReport?_total=accurate",
    "DiagnosticReport?_summary=count&status=preliminary",
    "DiagnosticReport?_count=0&date=ge2024-01-01",
    "DiagnosticReport?_summary=true",
    "DiagnosticReport?status=final&code=24627-2&date=ge2025-11-01",
    "DiagnosticReport?status=final&code=24627-2&_sort=-date",
    "DiagnosticReport?status:not=preliminary,final",
    "DiagnosticReport?status=registered",
    "DiagnosticReport?date:missing=true",
    "DiagnosticReport?code:text=ct",
    "DiagnosticReport?code=24627-2,30745-4",
    "DiagnosticReport?code=http://loinc.org|",
    "DiagnosticReport?date=ge2023-01-01",
    "DiagnosticReport?date=2024-06",
    "DiagnosticReport?date=ne2024-06-01",
    "DiagnosticReport?_lastUpdated=gt2026-01-01&modality=CT",
    "DiagnosticReport?_security=AIAST",
    "DiagnosticReport?patient.name=muller",
    "DiagnosticReport?patient.name:contains=ller99",
    "DiagnosticReport?patient.gender=female&status=final",
    "DiagnosticReport?imagingStudy.modality=CT&imagingStudy.started=ge2025-06-01",
    "DiagnosticReport?result.value-quantity=gt99",
    "DiagnosticReport?result.device.device-name=cxr",
    "DiagnosticReport?basedOn.identifier=ACC-7",
    "DiagnosticReport?_count=100&_include=DiagnosticReport:*&_include:iterate=Observation:device",
    "DiagnosticReport/$latest-per-study",
    "Patient?name=anna",
    "Patient?family:exact=M%C3%BCller77",
    "Patient?identifier=P-77&_revinclude=DiagnosticReport:patient",
    "Patient?_has:DiagnosticReport:patient:code=24627-2",
    "Patient?_has:Observation:patient:value-quantity=gt1000",
    "Patient/pat-7/$everything",
    "Patient/pat-7/*",
    "Observation?code-value-quantity=118565006$gt99||mL",
    "Observation?value-quantity=lt5",
    "Observation?combo-code=probability",
    "Observation?derived-from:ImagingStudy.modality=CT&device=algorithm",
    "ImagingStudy?patient=pat-7&modality=CT&_lastUpdated=gt2020-01-01",
    "ImagingStudy?modality=CT&_sort=-started",
    "?_type=Patient,ImagingStudy&_lastUpdated=gt2020",
    "_history?_count=50",
    "DiagnosticReport/_history?_since=2020-01-01",
)
"""Each is asked once at the larger size: none may take longer than `SLOWEST_S`."""
