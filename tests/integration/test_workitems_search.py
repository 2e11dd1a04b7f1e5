"""Searches for workitems by UPS-RS (PS3.18 11.9), written out by hand, over a real socket."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from gateway.store import Store
from tests.upsteps import created, serving, take_study
from tests.upsteps import value as value_of


@pytest.fixture
def store(local_store: Store) -> Store:
    """Give a store with one complete study."""
    take_study(local_store)
    return local_store


@pytest.fixture
def client(store: Store) -> Iterator[httpx.Client]:
    """Give a client of the worklist."""
    with serving(store) as made:
        yield made


SEARCHES: dict[str, str] = {
    "": "ab",
    "ProcedureStepState=SCHEDULED": "ab",
    "00741000=COMPLETED": "",
    "ProcedureStepLabel=thresholding": "a",
    "ProcedureStepLabel=oth*": "b",
    "ProcedureStepLabel=oth_r": "",
    "WorklistLabel=HybridMed": "ab",
    "ScheduledProcedureStepPriority=HIGH": "b",
    "PatientID=P-1": "a",
    "PatientID=P-?": "ab",
    "PatientID=p-?": "",
    "PatientName=doe*": "a",
    "PatientName=Roe%5eRichard": "b",
    "PatientBirthDate=19700101-19800101": "b",
    "ReferencedRequestSequence.AccessionNumber=A-2": "b",
    "InputInformationSequence.StudyInstanceUID=1.2.3": "a",
    "0040A370.0020000D=1.2.3,1.2.4": "ab",
    "ScheduledWorkitemCodeSequence.CodeValue=other": "b",
    "ScheduledProcedureStepStartDateTime=20200101-20210101": "",
    "ScheduledProcedureStepStartDateTime=20200101-": "ab",
    "limit=1&offset=1": "a",
}
"""Query -> the workitems that it finds."""


def test_search_matches(client: httpx.Client, store: Store) -> None:
    """Each matching key finds what it should; none found is 204."""
    other = {"patient_id": "P-2", "patient_name": "Roe^Richard", "accession_number": "A-2"}
    take_study(store, "1.2.4", **other, patient_birth_date="19750505")
    high = {"00741200": {"vr": "CS", "Value": ["HIGH"]}}
    names = {created(client): "a", created(client, study="1.2.4", label="other", **high): "b"}

    for query, expected in SEARCHES.items():
        answer = client.get(f"/workitems?{query}")
        found = answer.json() if answer.status_code == 200 else []
        assert sorted(names[value_of(step, "00080018")] for step in found) == list(expected), query
        assert answer.status_code == (200 if expected else 204), query


def test_search_tells_that_there_are_more(client: httpx.Client) -> None:
    """A limit that cuts answers gives 206 and says so; inputs come where they are included."""
    created(client)
    created(client, label="other")

    part = client.get("/workitems?limit=1")
    whole = client.get("/workitems?limit=2&includefield=InputInformationSequence")

    assert (part.status_code, whole.status_code) == (206, 200)
    assert "additional results" in part.headers["Warning"]
    assert "00404021" not in part.json()[0]
    assert value_of(whole.json()[0], "00404021") is not None


def test_search_refuses_what_it_does_not_know(client: httpx.Client) -> None:
    """A key that is not matched is refused, for an unfiltered answer would mislead."""
    for query in ("Nonsense=1", "limit=all", "StudyDescription=x", "ScheduledProcedureStepStartDateTime=soon"):
        assert client.get(f"/workitems?{query}").status_code == 400, query


def test_a_refused_date_of_birth_is_not_repeated(client: httpx.Client) -> None:
    """What is refused is logged, and no log holds a patient's data."""
    answer = client.get("/workitems?PatientBirthDate=1970-01-02")

    assert answer.status_code == 400
    assert "1970" not in answer.text
