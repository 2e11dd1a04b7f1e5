"""FHIR resources made by hand: small, of every kind that searches tell apart, and any number of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from fhir_facade.index import index_entries

from gateway.store import Store
from gateway.store.results import FhirVersion, IndexEntry, write_resources

NOW = datetime(2026, 3, 2, 13, 0, tzinfo=UTC)
LOINC = "http://loinc.org"
SCT = "http://snomed.info/sct"
UCUM = "http://unitsofmeasure.org"
AI_TAG = {"system": "http://example.org/tags", "code": "research"}
Json = dict[str, Any]


def patient(number: int, **values: Any) -> Json:
    """Return a Patient; `values` replace elements."""
    content = {
        "resourceType": "Patient",
        "id": f"pat-{number}",
        "meta": {"tag": [AI_TAG], "profile": ["http://example.org/profile"]} if number == 1 else {},
        "identifier": [{"system": "urn:oid:1.2.36", "value": f"P-{number}", "type": {"text": "Record number"}}],
        "name": [{"family": f"Müller{number}", "given": ["Anna", "Maria"], "text": f"Anna Maria Müller{number}"}],
        "telecom": [{"system": "phone", "value": f"555-{number}"}],
        "gender": "female" if number % 2 else "male",
        "birthDate": f"19{70 + number % 30}-02-14",
    }
    return content | values


def study(number: int, **values: Any) -> Json:
    """Return the ImagingStudy of a Patient; `values` replace elements."""
    content = {
        "resourceType": "ImagingStudy",
        "id": f"img-{number}",
        "identifier": [{"system": "urn:dicom:uid", "value": f"urn:oid:2.25.{number}"}],
        "status": "available",
        "subject": {"reference": f"Patient/pat-{number}"},
        "started": f"2026-03-{1 + number % 28:02d}T09:30:00+01:00",
        "series": [{"uid": f"2.25.{number}.1", "modality": {"code": "CT" if number % 2 else "DX"}}],
    }
    return content | values


def observation(number: int, value: str, **values: Any) -> Json:
    """Return the Observation of a study: a volume; `values` replace elements."""
    content = {
        "resourceType": "Observation",
        "id": f"obs-{number}",
        "status": "preliminary",
        "code": {"coding": [{"system": SCT, "code": "118565006", "display": "Volume"}], "text": "Lung volume"},
        "subject": {"reference": f"Patient/pat-{number}"},
        "derivedFrom": [{"reference": f"ImagingStudy/img-{number}"}],
        "device": {"reference": "Device/algorithm", "display": "cxr 1.0"},
        "effectiveDateTime": f"2026-03-{1 + number % 28:02d}",
        "valueQuantity": {"value": float(value), "unit": "mL", "system": UCUM, "code": "mL"},
        "component": [
            {
                "code": {"coding": [{"system": "urn:x", "code": "probability"}]},
                "valueQuantity": {"value": 10.0 * number, "unit": "%", "system": UCUM, "code": "%"},
            }
        ],
    }
    return content | values


def report(number: int, **values: Any) -> Json:
    """Return the DiagnosticReport on a study; `values` replace elements."""
    content = {
        "resourceType": "DiagnosticReport",
        "id": f"rep-{number}",
        "meta": {
            "security": [{"system": "http://terminology.hl7.org/CodeSystem/v3-ObservationValue", "code": "AIAST"}]
        },
        "identifier": [{"system": "urn:dicom:uid", "value": f"urn:oid:2.25.{number}.9"}],
        "basedOn": [{"type": "ServiceRequest", "identifier": {"system": "urn:acsn", "value": f"ACC-{number}"}}],
        "status": "final" if number % 3 == 0 else "preliminary",
        "code": {"coding": [{"system": LOINC, "code": "24627-2" if number % 2 else "30745-4", "display": "CT Chest"}]},
        "subject": {"reference": f"Patient/pat-{number}"},
        "effectiveDateTime": f"2026-03-{1 + number % 28:02d}T09:30:00+01:00",
        "issued": "2026-03-02T13:00:00Z",
        "result": [{"reference": f"Observation/obs-{number}"}],
        "imagingStudy": [{"reference": f"ImagingStudy/img-{number}"}],
        "conclusion": "x" * 200,
    }
    return content | values


DEVICE: Json = {
    "resourceType": "Device",
    "id": "algorithm",
    "status": "active",
    "deviceName": [{"name": "cxr-pneumonia", "type": "model-name"}],
    "manufacturer": "HybridMed",
}


def write(store: Store, resources: Iterable[Json], now: datetime = NOW) -> None:
    """Write resources as the worker does."""
    versions = [version(each) for each in resources]
    with store.write() as connection:
        write_resources(connection, versions, now, job_id=None)


def version(content: Json, extra: Sequence[IndexEntry] = ()) -> FhirVersion:
    """Return a resource with its index."""
    return FhirVersion(
        type=content["resourceType"],
        resource_id=content["id"],
        study_instance_uid=None,
        body=orjson.dumps(content),
        index=index_entries(content, UTC, extra),
    )


def fill(store: Store, count: int) -> None:
    """Write a device, and patients, studies, Observations and reports of each number from 1 on."""
    numbers = range(1, count + 1)
    made = ((patient(each), study(each), observation(each, f"{100 * each}"), report(each)) for each in numbers)
    write(store, [DEVICE, *(each for four in made for each in four)])


def later(hours: int) -> datetime:
    """Return a time after `NOW`."""
    return NOW + timedelta(hours=hours)
