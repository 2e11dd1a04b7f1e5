"""Whole requests to begin with, of every service."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any
from urllib.parse import urlencode

import pydicom
from pydicom.uid import RLELossless

from tests.dicomweb import STORE_TYPE, as_file, instance_path
from tests.dicomweb import body as parts_of
from tests.receiving import image
from tests.upsteps import FILTERED, GLOBAL, change, creation

FORM = "application/x-www-form-urlencoded"
FHIR_JSON, FHIR_XML = "application/fhir+json", "application/fhir+xml"
DICOM_JSON = "application/dicom+json"
WORKITEM = "2.25.77"
_OF_A_STUDY = 120
_XML_BOMB = (
    '<?xml version="1.0"?><!DOCTYPE Patient [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">'
    '<!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">]><Patient xmlns="http://hl7.org/fhir"><id value="&c;"/></Patient>'
)


@dataclass(frozen=True)
class Known:
    """What the server holds, so that requests meet something."""

    study: str
    series: str
    instance: str
    job: str
    resources: dict[str, str] = field(default_factory=dict)
    """FHIR resource type -> an id."""


@dataclass(frozen=True)
class Request:
    """An HTTP request before it is bytes."""

    method: str
    path: str
    query: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


def seeds(known: Known) -> list[Request]:
    """Return a request for each thing that can be asked, always in the same order."""
    return [*_dicomweb(known), *_workitems(known), *_fhir(known), *_pages(known)]


def stored_file(number: int) -> tuple[str, bytes]:
    """Return the path of an instance below the root, and it as a Part 10 file: half of them in fragments."""
    data_set = image(f"2.25.8{number // _OF_A_STUDY}", SOPInstanceUID=f"2.25.9{number}", AccessionNumber="A1")
    data_set.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
    data_set.BitsAllocated = data_set.BitsStored = 16
    data_set.HighBit, data_set.PixelRepresentation, data_set.SamplesPerPixel = 15, 0, 1
    data_set.PhotometricInterpretation = "MONOCHROME2"
    data_set.PixelData = bytes(range(8))
    as_file(data_set)
    if number % 4 < 2:
        data_set.compress(RLELossless, generate_instance_uid=False)
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, data_set, enforce_file_format=True)
    return instance_path(data_set), buffer.getvalue()


def store_request(file: bytes) -> Request:
    """Return the request that stores a file (PS3.18 10.5)."""
    return Request("POST", "/dicomweb/studies", "", (*STORE_TYPE.items(), ("Accept", DICOM_JSON)), parts_of([file]))


def _get(path: str, query: str = "", accept: str = "*/*", **headers: str) -> Request:
    named = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return Request("GET", path, query, (("Accept", accept), *named))


def _send(method: str, path: str, content: object, media_type: str, query: str = "") -> Request:
    body = content.encode() if isinstance(content, str) else json.dumps(content).encode()
    return Request(method, path, query, (("Content-Type", media_type), ("Accept", "*/*")), body)


def _dicomweb(known: Known) -> list[Request]:
    study = f"/dicomweb/studies/{known.study}"
    series = f"{study}/series/{known.series}"
    instance = f"{series}/instances/{known.instance}"
    searched = "PatientID=*&StudyDate=20200101-20301231&includefield=all&limit=5&offset=0&fuzzymatching=true"
    return [
        _get("/dicomweb/studies", searched, DICOM_JSON),
        _get("/dicomweb/series", "Modality=DX&SeriesInstanceUID=" + known.series, DICOM_JSON),
        _get("/dicomweb/instances", "00080018=" + known.instance + "&includefield=00280010", DICOM_JSON),
        _get(f"{study}/series", "Modality=DX,SR", DICOM_JSON),
        _get(f"{series}/instances", "InstanceNumber=1", DICOM_JSON),
        _get(study, "", 'multipart/related; type="application/dicom"; transfer-syntax=*'),
        _get(instance, "", "application/dicom", Range="bytes=0-99"),
        _get(f"{series}/metadata", "", DICOM_JSON, If_None_Match='"x"'),
        _get(f"{instance}/frames/1", "", 'multipart/related; type="application/octet-stream"'),
        _get(f"{instance}/rendered", "quality=90&viewport=64,64,0,0,32,32&window=100,400,linear", "image/jpeg"),
        _get(f"{instance}/thumbnail", "viewport=32,32", "image/png"),
        _get(f"{instance}/bulkdata/7FE00010", "", "application/octet-stream"),
        store_request(stored_file(1)[1]),
        Request("DELETE", f"{instance}9"),
    ]


def _workitems(known: Known) -> list[Request]:
    root, one = "/dicomweb/workitems", f"/dicomweb/workitems/{WORKITEM}"
    subscriber = "/subscribers/WATCHER"
    return [
        _send("POST", root, [creation(known.study)], DICOM_JSON, f"workitem={WORKITEM}"),
        _get(root, "00741000=SCHEDULED&ScheduledProcedureStepStartDateTime=2020-&limit=2&offset=0", DICOM_JSON),
        _get(one, "", DICOM_JSON),
        _send("PUT", f"{one}/state", [change("IN PROGRESS", "2.25.5")], DICOM_JSON),
        _send("POST", one, [{"00741204": {"vr": "LO", "Value": ["other"]}}], DICOM_JSON, "transaction=2.25.5"),
        _send("POST", f"{one}/cancelrequest", [{}], DICOM_JSON, "requester=WATCHER"),
        Request("POST", f"{root}/{GLOBAL}{subscriber}", "deletionlock=true"),
        Request("POST", f"{root}/{FILTERED}{subscriber}", "00404041=READY"),
        Request("POST", f"{root}/{GLOBAL}{subscriber}/suspend"),
        Request("DELETE", f"{root}/{GLOBAL}{subscriber}"),
    ]


def _fhir(known: Known) -> list[Request]:
    reads = [_get(f"/fhir/{kind}/{uid}", "", FHIR_JSON) for kind, uid in sorted(known.resources.items())]
    patient = known.resources.get("Patient", "pat-1")
    return [
        *reads,
        *_fhir_searches(patient),
        *_fhir_writes(patient),
    ]


def _fhir_searches(patient: str) -> list[Request]:
    return [
        _get("/fhir/metadata", "mode=full", FHIR_XML),
        _get("/fhir/DiagnosticReport", "_include=*&_revinclude=Provenance:target&_count=2&status=preliminary"),
        _get("/fhir/Observation", "value-quantity=gt0.1&subject.birthdate=ge1900&_sort=-date&_summary=count"),
        _get("/fhir/ImagingStudy", f"patient=Patient/{patient}&_elements=status&_total=accurate"),
        _get("/fhir/Patient", "name:contains=a&_has:Observation:subject:code=x&_page=abc", FHIR_XML),
        _get(f"/fhir/Patient/{patient}/$everything", "_since=2024-01-01&_type=Observation"),
        _get(f"/fhir/Patient/{patient}/Observation", "date=ge2020"),
        _get("/fhir/DiagnosticReport/$latest-per-study", "_count=1"),
        _get("/fhir/_history", "_since=2024-01-01T00:00:00Z&_count=2"),
        _get("/fhir/Subscription/$status", "status=active"),
        _send("POST", "/fhir/Patient/_search", urlencode({"family": "a", "_count": "2"}), FORM),
    ]


def _fhir_writes(patient: str) -> list[Request]:
    person: dict[str, Any] = {
        "resourceType": "Patient",
        "identifier": [{"system": "urn:oid:1.2.3", "value": "P-9"}],
        "name": [{"family": "Doe", "given": ["Jane"]}],
        "birthDate": "1970-01-01",
        "text": {"status": "generated", "div": '<div xmlns="http://www.w3.org/1999/xhtml">x</div>'},
    }
    order = {
        "resourceType": "ServiceRequest",
        "status": "active",
        "intent": "order",
        "subject": {"reference": f"Patient/{patient}"},
        "identifier": [{"system": "urn:oid:1.2.4", "value": "A1"}],
    }
    batch = {
        "resourceType": "Bundle",
        "type": "batch",
        "entry": [{"request": {"method": "GET", "url": url}} for url in ("Patient?_count=1", "metadata", "x")],
    }
    subscription = {
        "resourceType": "Subscription",
        "status": "requested",
        "reason": "x",
        "criteria": "DiagnosticReport?status=final",
        "channel": {"type": "rest-hook", "endpoint": "http://127.0.0.1:9/x", "payload": FHIR_JSON},
    }
    whole = _send("POST", "/fhir/Patient", person, FHIR_JSON)
    on_condition = ("If-None-Exist", "identifier=P-9")
    return [
        Request("POST", whole.path, "", (*whole.headers, on_condition), whole.body),
        _send("PUT", f"/fhir/Patient/{patient}", person | {"id": patient}, FHIR_JSON),
        _send("POST", "/fhir/ServiceRequest", order, FHIR_JSON),
        _send("POST", "/fhir", batch, FHIR_JSON),
        _send("POST", "/fhir/Subscription", subscription, FHIR_JSON),
        _send("POST", "/fhir/Patient", _XML_BOMB, FHIR_XML),
    ]


def _pages(known: Known) -> list[Request]:
    study = f"/studies/{known.study}"
    verdict = {"job_id": known.job, "action": "correct", "observer": "Curie Marie", "comment": "c", "remove:0:1": "1"}
    asked = "q=a&state=open&modality=DX&finding=pneumonia&from=2020-01-01&to=2030-01-01&page=1"
    return [
        _get("/worklist", asked, "text/html", Accept_Language="zh-CN,en;q=0.5"),
        _get(study, "done=accept&lang=zh", "text/html"),
        _get("/pictures/1.png", "", "image/png"),
        _get("/preferences", "language=zh&theme=dark&next=/worklist", "text/html"),
        _get("/healthz"),
        _get("/metrics", "", "application/openmetrics-text"),
        _get("/viewer/studies/" + known.study, "", "text/html"),
        _send("POST", f"{study}/verify", urlencode(verdict), FORM),
        _send("POST", f"{study}/verify", verdict, "application/json"),
        _send("POST", f"{study}/reprocess", urlencode({"stat": "1", "bundle": "cxr-pneumonia"}), FORM),
        _send("POST", f"{study}/stat", "", FORM),
        _send("POST", f"{study}/resend", {"destination": "PACS"}, "application/json"),
    ]
