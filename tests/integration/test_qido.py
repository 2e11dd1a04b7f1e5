"""QIDO-RS over a real socket and database, asked by dicomweb-client and by hand."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Iterator
from datetime import UTC
from urllib.parse import quote

import httpx
import pydicom
import pytest
import sqlalchemy as sa
from dicomweb_client.api import DICOMwebClient
from fhir_facade.app import create_app as create_fhir_app
from pydicom.dataset import Dataset

from gateway.header import read_data_set
from gateway.query import Match
from gateway.services import Counters
from gateway.store import Store
from gateway.store.instances import ReceivedInstance, index_batch
from gateway.store.tables import study
from gateway.web import HttpParts, create_app
from gateway.web.auth import Access
from gateway.web.dicomweb import dicom_json, qido
from gateway.web.dicomweb.answers import Answer, Answers
from gateway.web.dicomweb.parameters import MOST_MATCHES
from tests.receiving import EXPLICIT, encoded, image
from tests.stores import NOON, add_instance, add_series, add_study
from tests.unit.web.serving import served

HOSTILE = "<script>alert(1)</script>^\"'&"
JSON = {"Accept": "application/dicom+json"}


def application(store: Store) -> HttpParts:
    """Return what an application without authentication is made of."""
    return HttpParts(store, create_fhir_app(store, zone=UTC), Access("none"), Counters(), 0)


@pytest.fixture
def client(store: Store) -> Iterator[httpx.Client]:
    """Give a client of the application over `store`."""
    with served(create_app(application(store))) as made:
        yield made


@pytest.fixture
def local(local_store: Store) -> Iterator[httpx.Client]:
    """Give a client of the application over SQLite."""
    with served(create_app(application(local_store))) as made:
        yield made


def receive(store: Store, *data_sets: Dataset) -> None:
    """Index data sets as a receiver does."""
    received = []
    for data_set in data_sets:
        header = read_data_set(io.BytesIO(encoded(data_set)), EXPLICIT)
        path = f"instances/{header.sop_instance_uid}.dcm"
        received.append(ReceivedInstance(header, header.sop_instance_uid, path, 1, "a1", "CT1", NOON))
    with store.write() as connection:
        index_batch(connection, received, NOON)


def a_study(number: int, **changes: object) -> Dataset:
    """Return the only instance of a study, with all that queries return."""
    request = Dataset()
    request.ScheduledProcedureStepID, request.RequestedProcedureID = f"SPS{number}", f"RP{number}"
    values: dict[str, object] = {
        "SpecificCharacterSet": "ISO_IR 192",
        "SOPInstanceUID": f"1.2.{number}.1.1",
        "SeriesInstanceUID": f"1.2.{number}.1",
        "PatientName": f"Doe^Jane {number}",
        "PatientID": f"P{number}",
        "StudyDate": f"2026030{number}",
        "StudyTime": "101500",
        "AccessionNumber": f"A{number}",
        "StudyDescription": "Thorax",
        "SeriesNumber": 3,
        "InstanceNumber": 7,
        "BodyPartExamined": "CHEST",
        "PerformedProcedureStepStartDate": "20260302",
        "PerformedProcedureStepStartTime": "1010",
        "RequestAttributesSequence": [request],
    }
    return image(f"1.2.{number}", **values | changes)


def found(client: httpx.Client, path: str) -> list[dict[str, dict[str, list[object]]]]:
    """Return the data sets that a search gives; none where it says 204."""
    answer = client.get(f"/dicomweb{path}", headers=JSON)
    assert answer.status_code in (200, 204), answer.text
    return answer.json() if answer.status_code == 200 else []


def uids(client: httpx.Client, path: str, tag: str = "0020000D") -> list[object]:
    """Return the UIDs that a search finds."""
    return [one[tag]["Value"][0] for one in found(client, path)]


def test_an_independent_client_finds_and_reads(store: Store, client: httpx.Client) -> None:
    """dicomweb-client searches on every level, with filters, fields, fuzzy names and pages; pydicom reads it."""
    receive(store, *(a_study(number) for number in range(1, 6)))
    web = DICOMwebClient(f"{client.base_url}/dicomweb")

    studies = web.search_for_studies(search_filters={"PatientName": "jan doe"}, fuzzymatching=True, limit=2, offset=1)
    (series,) = web.search_for_series("1.2.3", fields=["BodyPartExamined"])
    (instance,) = web.search_for_instances(search_filters={"00100020": "P4"})
    everything = web.search_for_studies(limit=2, get_remaining=True)

    read = [Dataset.from_json(one) for one in studies]
    assert [one.StudyInstanceUID for one in read] == ["1.2.4", "1.2.3"]
    assert (str(read[0].PatientName), read[0].ModalitiesInStudy, read[0].StudyDate) == ("Doe^Jane 4", "CT", "20260304")
    assert (read[0].NumberOfStudyRelatedInstances, read[0].InstanceAvailability) == (1, "ONLINE")
    shown = Dataset.from_json(series)
    assert (shown.BodyPartExamined, shown.SeriesNumber, shown.PerformedProcedureStepStartTime) == ("CHEST", 3, "1010")
    assert shown.RequestAttributesSequence[0].ScheduledProcedureStepID == "SPS3"
    assert "PatientName" not in shown
    shown = Dataset.from_json(instance)
    assert (shown.SOPInstanceUID, shown.InstanceNumber, shown.Rows) == ("1.2.4.1.1", 7, 2)
    assert str(shown.PatientName) == "Doe^Jane 4"
    assert len(everything) == 5


SEARCHES: list[tuple[str, list[str]]] = [
    ("/studies?00100020=P2", ["1.2.2"]),
    ("/studies?PatientID=P*&StudyDate=20260302-", ["1.2.3", "1.2.2"]),
    ("/studies?StudyInstanceUID=1.2.1,1.2.3,1.2.9", ["1.2.3", "1.2.1"]),
    ("/studies?StudyInstanceUID=1.2.1&StudyInstanceUID=1.2.3", ["1.2.3", "1.2.1"]),
    ("/studies?StudyDate=20260301-20260302&StudyTime=1200-1100", ["1.2.2"]),
    ("/studies?ModalitiesInStudy=CT,MR&AccessionNumber=A1", ["1.2.1"]),
    ("/studies?PatientName=", ["1.2.3", "1.2.2", "1.2.1"]),
    ("/series?00400275.00400009=SPS2", ["1.2.2"]),
    ("/series?RequestAttributesSequence.RequestedProcedureID=RP3", ["1.2.3"]),
    ("/series?PerformedProcedureStepStartDate=20260302&Modality=CT&AccessionNumber=A1", ["1.2.1"]),
    ("/instances?SOPInstanceUID=1.2.1.1.1", ["1.2.1"]),
    ("/studies/1.2.1/series", ["1.2.1"]),
    ("/studies/1.2.1/instances?InstanceNumber=7", ["1.2.1"]),
    ("/studies/1.2.1/series/1.2.1.1/instances", ["1.2.1"]),
    ("/studies/1.2.1/series/1.2.2.1/instances", []),
    ("/studies/1.2.9/series", []),
    ("/studies?PatientID=p2", []),
]


def test_searches(local_store: Store, local: httpx.Client) -> None:
    """Attributes by keyword, tag and path; ranges, lists and universal matching; below a study and a series."""
    receive(local_store, *(a_study(number) for number in range(1, 4)))

    assert [(path, uids(local, path)) for path, _ in SEARCHES] == SEARCHES


def test_the_json_model(store: Store, client: httpx.Client) -> None:
    """Names by component groups, numbers as numbers, no empty values, UTF-8, an address to retrieve from (F.2)."""
    named = {"PatientName": "Wang^XiaoDong=王^小东", "ReferringPhysicianName": "Müller"}
    receive(store, a_study(1, **named, AccessionNumber=""))

    answer = client.get("/dicomweb/studies?includefield=all", headers=JSON)

    (shown,) = json.loads(answer.content.decode("utf-8"))
    assert answer.headers["content-type"] == "application/dicom+json"
    assert list(shown) == sorted(shown)
    assert shown["00100010"] == {"vr": "PN", "Value": [{"Alphabetic": "Wang^XiaoDong", "Ideographic": "王^小东"}]}
    assert shown["00080090"] == {"vr": "PN", "Value": [{"Alphabetic": "Müller"}]}
    assert shown["00080050"] == {"vr": "SH"}
    assert shown["00080005"] == {"vr": "CS", "Value": ["ISO_IR 192"]}
    assert shown["00201208"] == {"vr": "IS", "Value": [1]}
    assert shown["00080062"] == {"vr": "UI", "Value": ["1.2.840.10008.5.1.4.1.1.2"]}
    assert shown["00081190"] == {"vr": "UR", "Value": [f"{client.base_url}/dicomweb/studies/1.2.1"]}
    (instance,) = found(client, "/instances")
    assert instance["00081190"]["Value"] == [
        f"{client.base_url}/dicomweb/studies/1.2.1/series/1.2.1.1/instances/1.2.1.1.1"
    ]
    assert "00280008" not in instance


WRONG: list[tuple[str, str]] = [
    ("/studies?PatientNam=x", "'PatientNam' is neither a parameter of a search nor an attribute of DICOM"),
    ("/studies?<script>=x", "'?script?' is neither"),
    ("/studies?limit=0", "limit takes a whole number from 1"),
    ("/studies?limit=many", "limit takes a whole number"),
    ("/studies?offset=-1", "offset takes a whole number"),
    ("/studies?limit=1&limit=2", "limit stands twice"),
    ("/studies?PatientID=a&PatientID=b", "PatientID stands twice"),
    ("/studies?fuzzymatching=maybe", "fuzzymatching takes true or false"),
    ("/studies?includefield=Nonsense", "'Nonsense' is neither"),
    ("/studies?StudyDate=2026", "StudyDate takes a date YYYYMMDD"),
    ("/studies?StudyTime=9", "StudyTime takes a time"),
    ("/series?SeriesNumber=1.5", "SeriesNumber takes a whole number"),
    ("/studies?StudyInstanceUID=../../etc", "StudyInstanceUID takes UIDs"),
    ("/studies/..%5C..%5Cx/series", "StudyInstanceUID takes UIDs"),
    ("/studies/1.2.*/instances", "StudyInstanceUID takes UIDs"),
    ("/studies/1.2/series/x'%20OR%201=1/instances", "SeriesInstanceUID takes UIDs"),
    (f"/studies?PatientName={'x' * 60000}", "PatientName takes at most 1024 characters"),
    ("/studies?PatientID=%00", "PatientID takes no control characters"),
    ("/studies?" + "&".join(["includefield=all"] * 101), "a search takes at most 100 parameters"),
]


def test_what_is_wrong_is_said(local: httpx.Client) -> None:
    """400 and a sentence that names the parameter and what it takes."""
    answers = [(local.get(f"/dicomweb{path}", headers=JSON), says) for path, says in WRONG]

    assert [answer.status_code for answer, _ in answers] == [400] * len(WRONG)
    assert [says for answer, says in answers if says not in answer.json()["error"]] == []
    assert max(len(answer.json()["error"]) for answer, _ in answers) < 200


def test_paths_do_not_lead_out(local: httpx.Client) -> None:
    """A UID made of dots and slashes is no path of ours."""
    for path in ("/studies/%2e%2e%2f%2e%2e%2fetc/series", "/studies/..%2f../instances"):
        assert local.get(f"/dicomweb{path}").status_code in (400, 404)


def test_hostile_values_are_text(store: Store, client: httpx.Client) -> None:
    """A name made of script, long texts and wildcards of SQL come back as they were sent, and match as themselves."""
    receive(store, a_study(1, PatientName=HOSTILE, StudyDescription="d" * 64), a_study(2, PatientID="50%_[x]"))
    with store.write() as connection:
        connection.execute(sa.update(study).where(study.c.patient_id == "P1").values(study_description="d" * 1024))

    answer = client.get(f"/dicomweb/studies?PatientName={quote(HOSTILE.lower())}", headers=JSON)

    assert answer.headers["content-type"] == "application/dicom+json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.json()[0]["00100010"]["Value"] == [{"Alphabetic": HOSTILE}]
    assert answer.json()[0]["00081030"]["Value"] == ["d" * 1024]
    assert uids(client, f"/studies?PatientID={quote('50%_[x]')}") == ["1.2.2"]
    assert uids(client, f"/studies?PatientID={quote('5?%_[*')}") == ["1.2.2"]
    assert uids(client, "/studies?PatientID=P%25") == []
    assert uids(client, f"/studies?PatientName={quote(HOSTILE[:-1])}*") == ["1.2.1"]


ACCEPTED: list[tuple[str, str | None]] = [
    ("application/dicom+json", "application/dicom+json"),
    ("application/json", "application/json"),
    ("text/html, */*;q=0.1", "application/dicom+json"),
    ("application/json;q=0.5, application/dicom+json;q=0.6", "application/dicom+json"),
    ('multipart/related; type="application/dicom+json"', None),
    ("application/dicom+json;q=0", None),
    ("text/html", None),
]


def test_the_type_is_negotiated(local_store: Store, local: httpx.Client) -> None:
    """The type wanted most, or 406 with what there is; an answer of one type is never served as another."""
    receive(local_store, a_study(1))
    local.get("/dicomweb/studies", headers=JSON)

    answers = [local.get("/dicomweb/studies", headers={"Accept": accept}) for accept, _ in ACCEPTED]

    assert [answer.status_code for answer in answers] == [200 if expected else 406 for _, expected in ACCEPTED]
    types = [answer.headers["content-type"] for answer in answers]
    assert types == [expected or "application/json" for _, expected in ACCEPTED]


def test_cut_answers_and_keys_not_matched_are_told(local_store: Store, local: httpx.Client) -> None:
    """More than the server returns at once, and an attribute that is not matched: Warning 299; a page is no cut."""
    with local_store.write() as connection:
        add_study(connection, "1.5")
        add_series(connection, "1.5", "1.5.1")
        for number in range(MOST_MATCHES + 3):
            add_instance(connection, "1.5", "1.5.1", f"1.5.1.{number}", instance_number=number)

    cut = local.get("/dicomweb/studies/1.5/instances?limit=5000")
    rest = local.get(f"/dicomweb/studies/1.5/instances?offset={MOST_MATCHES}")
    page = local.get("/dicomweb/studies/1.5/instances?limit=10")
    ignored = local.get("/dicomweb/studies?ManufacturerModelName=x&00091001=y&Modality=CT")

    assert len(cut.json()) == MOST_MATCHES
    assert "The number of results exceeded the maximum supported" in cut.headers["warning"]
    assert (len(rest.json()), len(page.json())) == (3, 10)
    assert "warning" not in rest.headers and "warning" not in page.headers
    assert ignored.headers["warning"].startswith("299 ")
    assert "ManufacturerModelName, 00091001, Modality" in ignored.headers["warning"]


def test_no_answer_is_stale(store: Store, client: httpx.Client) -> None:
    """Right after each commit an answer shows it, from whatever connection it came."""
    seen = []
    for number in range(1, 9):
        receive(store, a_study(number))
        seen.append(len(found(client, "/studies")))
        with store.write() as connection:
            name = f"Name{number}"
            connection.execute(sa.update(study).values(patient_name=name))
        names = {one["00100010"]["Value"][0]["Alphabetic"] for one in found(client, "/studies")}  # type: ignore[index]
        assert names == {name}
        assert found(client, "/studies") == found(client, "/studies")

    assert seen == list(range(1, 9))


def test_answers_are_kept_and_dropped() -> None:
    """Kept under a mark, gone under the next; the least recently used go first where they take too much."""
    answers = Answers(most_bytes=250)
    keys = [(f"/{number}", b"", None, None, "http") for number in range(3)]
    kept = Answer({"type": "start"}, {"type": "body"}, 100)
    assert answers.get(keys[0], 1) is None
    for key in keys[:2]:
        answers.put(key, 1, kept)
    answers.get(keys[0], 1)
    answers.put(keys[2], 1, kept)
    answers.put(keys[2], 0, kept)

    assert [answers.get(key, 1) is kept for key in keys] == [True, False, True]
    assert [answers.get(key, 2) for key in keys] == [None, None, None]
    assert answers.get(keys[0], 1) is None


def test_access_is_checked_before_what_is_kept(local_store: Store) -> None:
    """An answer that one may see is not given to another who may not."""
    receive(local_store, a_study(1))
    with served(create_app(application(local_store))) as made:
        mine = made.get("/dicomweb/studies")
        theirs = made.get("/dicomweb/studies", headers={"Host": "evil.example"})

    assert (mine.status_code, theirs.status_code) == (200, 421)


def test_answers_are_written_outside_of_the_event_loop(
    local_store: Store, local: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long answer takes its time in a thread, so that no other request waits for it."""
    in_loop: list[bool] = []

    def watched(match: Match, retrieve_url: str) -> bytes:
        in_loop.append(asyncio._get_running_loop() is not None)
        return dicom_json.data_set(match, retrieve_url)

    monkeypatch.setattr(qido, "data_set", watched)
    receive(local_store, a_study(1))

    assert len(found(local, "/studies")) == 1
    assert in_loop == [False]


def test_pydicom_agrees_with_the_index(local_store: Store, local: httpx.Client) -> None:
    """What a search shows of an instance is what pydicom reads in it."""
    data_set = a_study(4, NumberOfFrames=3, TimezoneOffsetFromUTC="+0100", PatientBirthDate="19700101")
    receive(local_store, data_set)
    plain = pydicom.dcmread(io.BytesIO(encoded(data_set)), force=True)

    (shown,) = [Dataset.from_json(one) for one in found(local, "/instances?includefield=all")]

    compared = [element.keyword for element in plain if element.keyword in shown and element.VR != "SQ"]
    assert len(compared) >= 20
    assert {keyword: shown[keyword].value for keyword in compared} == {key: plain[key].value for key in compared}
