"""Searches as clients make them, over resources made by hand: what each form of each parameter finds."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import sqlalchemy as sa
from fhir_facade.app import create_app
from fhir_facade.outcome import TooCostlyError
from fhir_facade.search import bounded_time

from gateway.store import Store
from tests import fhir_made as made
from tests.unit.web.serving import served

URL_CHARACTERS = "=&%|:,._-+/'$?*"
NUMBERS: dict[str, str] = {
    # token
    "DiagnosticReport?code=24627-2": "1 3 5",
    "DiagnosticReport?code=http://loinc.org|24627-2": "1 3 5",
    "DiagnosticReport?code=|24627-2": "",
    "DiagnosticReport?code=http://loinc.org|": "1 2 3 4 5 6",
    "DiagnosticReport?code:text=ct ch": "1 2 3 4 5 6",
    "DiagnosticReport?code:text=chest": "",
    "Observation?code:text=lung": "1 2 3 4 5 6",
    "Patient?identifier:text=record": "1 2 3 4 5 6",
    "DiagnosticReport?status:not=final": "1 2 4 5",
    "Patient?phone=555-1": "1",
    "Patient?email=555-1": "",
    "Patient?_tag=research": "1",
    "Patient?_tag:not=research": "2 3 4 5 6",
    "Patient?_profile=http://example.org/profile": "1",
    "DiagnosticReport?_security=AIAST": "1 2 3 4 5 6",
    "Patient?gender=http://hl7.org/fhir/administrative-gender|male&birthdate=lt1973": "2",
    # string
    "Patient?name=mul": "1 2 3 4 5 6",
    "Patient?name=ANNA": "1 2 3 4 5 6",
    "Patient?name=aria": "",
    "Patient?name:contains=LLER2": "2",
    "Patient?family:exact=Müller3": "3",
    "Patient?family:exact=müller3": "",
    # quantity and composite
    "Observation?value-quantity=300": "3",
    "Observation?value-quantity=3e2": "3",
    "Observation?value-quantity=gt300": "4 5 6",
    "Observation?value-quantity=le200|http://unitsofmeasure.org|mL": "1 2",
    "Observation?value-quantity=300||mL": "3",
    "Observation?value-quantity=300||L": "",
    "Observation?value-quantity=ne300": "1 2 4 5 6",
    "Observation?value-quantity=ap310": "3",
    "Observation?code-value-quantity=http://snomed.info/sct|118565006$lt300||mL": "1 2",
    "Observation?code-value-quantity=118565006$gt900": "",
    "Observation?component-code-value-quantity=probability$20": "2",
    "Observation?combo-code=probability": "1 2 3 4 5 6",
    "Observation?combo-value-quantity=le20": "1 2",
    "Observation?combo-code-value-quantity=probability$ge50||%": "5 6",
    # reference
    "DiagnosticReport?patient=pat-2": "2",
    "DiagnosticReport?patient=Patient/pat-2,Patient/pat-3": "2 3",
    "DiagnosticReport?subject=Device/pat-2": "",
    "DiagnosticReport?subject:Patient=pat-2": "2",
    "DiagnosticReport?patient=http://elsewhere/fhir/Patient/pat-2": "2",
    "Observation?device:text=cxr 1": "1 2 3 4 5 6",
    "DiagnosticReport?basedOn:identifier=urn:acsn|ACC-2": "2",
    "DiagnosticReport?based-on:missing=true": "1 2 3 4 5 6",
    # chains, forward and backward
    "DiagnosticReport?patient.identifier=urn:oid:1.2.36|P-4": "4",
    "DiagnosticReport?subject:Patient.name:exact=Müller1": "1",
    "DiagnosticReport?basedOn.identifier=ACC-2": "2",
    "DiagnosticReport?imagingStudy.modality=CT": "1 3 5",
    "DiagnosticReport?imagingStudy.started=ge2026-03-06": "5 6",
    "DiagnosticReport?result.device.device-name=cxr&status=final": "3 6",
    "DiagnosticReport?result.derived-from:ImagingStudy.patient.identifier=P-5": "5",
    "Patient?_has:DiagnosticReport:patient:code=24627-2": "1 3 5",
    "Patient?_has:Observation:patient:value-quantity=gt400": "5 6",
    "Patient?_has:ImagingStudy:patient:_has:DiagnosticReport:imagingStudy:status=final": "3 6",
    "DiagnosticReport?patient._has:Observation:patient:value-quantity=100": "1",
    # dates
    "DiagnosticReport?date=ge2026-03-04&date=lt2026-03-06": "3 4",
    "DiagnosticReport?date=2026-03-04,2026-03-07": "3 6",
    "DiagnosticReport?date=2026": "1 2 3 4 5 6",
    "Observation?date=sa2026-03-04": "4 5 6",
    "Observation?date=eb2026-03-04": "1 2",
    "Task?period=2026-05-10": "",
    "Task?period=ge2026-05-10": "1 2",
    "Task?period=lt2026-05-10": "1",
    # several at once, and of the server's own
    "ImagingStudy?patient=pat-1&modality=CT&_lastUpdated=gt2026-03-01": "1",
    "ImagingStudy?patient=pat-1&modality=CT&_lastUpdated=gt2026-03-03": "",
    "DiagnosticReport?_contained=true": "",
    "DiagnosticReport?_contained=both&_containedType=container&status=final": "3 6",
    "DiagnosticReport?_id=rep-1,rep-2,nobody": "1 2",
    # compartments
    "Patient/pat-2/DiagnosticReport": "2",
    "Patient/pat-2/DiagnosticReport?status=final": "",
    "Patient/pat-2/*": "2 2 2 2",
    "Device/algorithm/Observation?value-quantity=lt300": "1 2",
}
REFUSED = (
    *("code:in=http://x/vs", "code:not-in=http://x/vs", "code:above=1", "code:below=1", "_profile:below=http://x"),
    *("date:exact=2026", "status:contains=f", "_id:missing=true"),
)


@pytest.fixture
def client(store: Store) -> Iterator[httpx.Client]:
    """Give a client of a server with six patients, each with a study, an Observation and a report; and two Tasks."""
    made.fill(store, 6)
    periods = [{"start": "2026-01-01", "end": "2026-06-01"}, {"start": "2026-05-20"}]
    made.write(store, [task(number, period) for number, period in enumerate(periods, 1)])
    with served(create_app(store, zone=UTC)) as opened:
        yield opened


def task(number: int, period: dict[str, str]) -> made.Json:
    """Return a Task that took some time."""
    head = {"resourceType": "Task", "id": f"task-{number}", "status": "completed", "intent": "order"}
    return head | {"executionPeriod": period}


def entries(response: httpx.Response, mode: str = "match") -> list[dict[str, Any]]:
    """Return the resources of a searchset that are there for this reason."""
    assert response.status_code == 200, response.text
    return [each["resource"] for each in response.json().get("entry", []) if each["search"]["mode"] == mode]


def ids(response: httpx.Response, mode: str = "match") -> list[str]:
    """Return the ids of those."""
    return [each["id"] for each in entries(response, mode)]


def link(response: httpx.Response, relation: str) -> str | None:
    """Return a link of a Bundle."""
    links: dict[str, str] = {each["relation"]: each["url"] for each in response.json()["link"]}
    return links.get(relation)


def test_each_form_finds_what_it_should(client: httpx.Client) -> None:
    """Every form of every kind of parameter, on both databases; and by POST the same as by GET."""
    found = {}
    for query in NUMBERS:
        path, _, tail = query.partition("?")
        tail = quote(tail, safe=URL_CHARACTERS)
        by_get = ids(client.get(f"/{path}?{tail}"))
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        assert ids(client.post(f"/{path}/_search", content=tail, headers=form)) == by_get if path[-1] != "*" else True
        found[query] = " ".join(sorted(each.rpartition("-")[2] for each in by_get))

    assert found == NUMBERS


def test_what_is_not_offered_is_refused_clearly(client: httpx.Client) -> None:
    """Modifiers that would need more than the index are an error, with the parameter's name, strict or not."""
    for query in REFUSED:
        response = client.get(f"/DiagnosticReport?{query}")
        issue = response.json()["issue"][0]

        assert (response.status_code, issue["code"]) == (400, "not-supported"), query
        assert query.partition(":")[0] in issue["diagnostics"]


def test_included_resources_go_along_once(client: httpx.Client) -> None:
    """Forward, backward, over several steps, all at once, and never twice; the total counts matches alone."""
    forward = client.get("/DiagnosticReport?code=24627-2&_include=DiagnosticReport:subject")
    stepwise = "/DiagnosticReport?_id=rep-1&_include=DiagnosticReport:result&_include:iterate=Observation:device"
    backward = client.get(
        "/Patient?identifier=P-2&_revinclude=DiagnosticReport:patient&_revinclude=Observation:patient"
    )
    every = ids(client.get("/DiagnosticReport?_id=rep-1&_include=DiagnosticReport:*"), "include")
    other = client.get("/DiagnosticReport?_id=rep-1&_include=DiagnosticReport:subject:Device")

    assert sorted(ids(forward, "include")) == ["pat-1", "pat-3", "pat-5"]
    assert forward.json()["total"] == 3
    assert sorted(ids(client.get(stepwise), "include")) == ["algorithm", "obs-1"]
    assert sorted(ids(client.get(stepwise.replace(":iterate", "")), "include")) == ["obs-1"]
    assert sorted(ids(backward, "include")) == ["obs-2", "rep-2"]
    assert sorted(every) == ["img-1", "obs-1", "pat-1"]
    assert ids(other, "include") == []


def test_parts_of_resources_are_marked_as_parts(client: httpx.Client) -> None:
    """`_summary` and `_elements` leave out what they should, keep what must be there, and say SUBSETTED."""

    def one(query: str) -> dict[str, Any]:
        (resource,) = entries(client.get(f"/{query}"))
        assert {"code": "SUBSETTED"}.items() <= resource["meta"]["tag"][-1].items()
        return resource

    summary = one("DiagnosticReport?_id=rep-1&_summary=true")
    text = one("DiagnosticReport?_id=rep-1&_summary=text")
    named = one("ImagingStudy?_id=img-1&_elements=started")

    assert "conclusion" not in summary
    assert {"status", "code", "subject", "issued"} <= summary.keys()
    assert text.keys() == {"resourceType", "id", "meta", "status", "code"}
    assert named.keys() == {"resourceType", "id", "meta", "status", "subject", "started"}
    assert one("DiagnosticReport?_id=rep-1&_summary=data").keys() >= {"conclusion", "result"}
    assert "tag" not in entries(client.get("/DiagnosticReport?_id=rep-1&_summary=false"))[0]["meta"]


def test_totals_are_given_where_they_are_known_or_asked_for(client: httpx.Client) -> None:
    """A page that holds all tells how many there are; others count when asked, by any of the ways that clients have."""
    for query in ("_total=accurate", "_total=estimate", "_totalMethod=count"):
        assert client.get(f"/DiagnosticReport?_count=2&status=preliminary&{query}").json()["total"] == 4
    for query in ("_count=0", "_summary=count", "_count=0&_totalMethod=count"):
        counted = client.get(f"/DiagnosticReport?{query}&date=ge2026-03-04").json()
        assert (counted["total"], "entry" in counted) == (4, False)
    assert client.get("/DiagnosticReport").json()["total"] == 6
    assert "total" not in client.get("/DiagnosticReport?_count=2&_total=none").json()


def test_pages_stay_whole_while_others_write(store: Store, client: httpx.Client) -> None:
    """Between the pages of a client resources are added before and after its place: it sees each old one once."""
    queries = (
        "",
        "code=24627-2",
        "_sort=-date",
        "_sort=date",
        "_sort=status,-date",
        "date=ge2026",
        "_lastUpdated=gt2020",
    )
    for at, query in enumerate(queries):
        before = set(ids(client.get(f"/DiagnosticReport?{query}")))
        seen: list[str] = []
        address: str | None = f"/DiagnosticReport?{query}&_count=2"
        while address is not None:
            page = client.get(address)
            seen += ids(page)
            number = 1000 * at + 100 + len(seen)
            days = [made.report(number, effectiveDateTime="2026-02-01"), made.report(number + 50)]
            made.write(store, days) if len(seen) <= 6 else None
            address = link(page, "next")

        assert before <= set(seen), query
        assert len(seen) == len(set(seen)), query


def test_several_types_at_once(client: httpx.Client) -> None:
    """A search over the whole server takes what all its types have, and says in the self link what it took."""
    both = client.get("/?_type=Patient,Device&_lastUpdated=gt2026-03-01")
    posted = client.post("/_search", data={"_type": "Patient,Device", "_count": "3"})
    unknown = client.get("/?_type=Patient,Medication")

    assert len(ids(both)) == 7
    assert len(ids(posted)) == 3
    assert unknown.status_code == 400
    assert "_type=Patient%2CDevice" in str(link(both, "self"))
    assert len(ids(client.get("/?_type=Patient&name=anna"))) == 6
    assert client.get("/Patient/pat-1/Organization").status_code == 404


def test_unknown_parameters_are_left_out_or_an_error(client: httpx.Client) -> None:
    """What means nothing here is no part of the self link; with handling=strict it is refused."""
    query = "/DiagnosticReport?colour=red&status=final&_include=Nobody:x&patient.colour=1&_summary=maybe"
    lenient = client.get(query)

    assert str(link(lenient, "self")).endswith("/DiagnosticReport?status=final")
    for part in query.partition("?")[2].split("&"):
        strict = client.get(f"/DiagnosticReport?{part}", headers={"Prefer": "handling=strict"})
        assert strict.status_code == (200 if part == "status=final" else 400), part


def test_what_was_replaced_is_not_found(store: Store, client: httpx.Client) -> None:
    """A search looks at current versions: not at what an earlier one said, nor at what was deleted."""
    made.write(store, [made.report(1, status="amended")], made.later(1))

    assert ids(client.get("/DiagnosticReport?status=amended")) == ["rep-1"]
    assert "rep-1" not in ids(client.get("/DiagnosticReport?status=preliminary"))


def test_bounds(client: httpx.Client) -> None:
    """Too deep a chain, too many values or includes are too costly; a page holds no more than its limit."""
    deep = ".".join(["part-of"] * 8) + ".status=completed"
    includes = "&".join(f"_include=DiagnosticReport:subject:{'X' * at}" for at in range(30))
    many = "&".join("_include=DiagnosticReport:subject" for _ in range(30))

    assert client.get(f"/Task?{deep}").json()["issue"][0]["code"] == "too-costly"
    assert client.get(f"/DiagnosticReport?{includes}").status_code == 200
    assert client.get(f"/DiagnosticReport?{many}").json()["issue"][0]["code"] == "too-costly"
    assert client.get("/DiagnosticReport?_count=100000").status_code == 200


def test_a_search_that_takes_too_long_is_ended(store: Store) -> None:
    """The database stops at the statement, the client is told that it is too costly, and the connection goes on."""
    endless = sa.text(
        "WITH RECURSIVE counted(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counted WHERE n < 100000000) "
        "SELECT max(n) FROM counted"
    )
    with store.read() as connection, pytest.raises(TooCostlyError), bounded_time(connection, 0.1):
        connection.execute(endless)

    with store.read() as connection:
        assert connection.scalar(sa.text("SELECT 1")) == 1
