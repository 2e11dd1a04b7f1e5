"""Whatever a client asks for, the FHIR server answers in FHIR."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC
from urllib.parse import quote

import httpx
import pytest
from fhir_facade.app import create_app
from fhir_facade.parameters import PARAMETERS, SEARCHED
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.store import Store
from tests import fhir_made as made
from tests.unit.web.serving import served

ANY_NAME = sorted({name for parameters in PARAMETERS.values() for name in parameters})
CONTROL = [
    *("_count", "_sort", "_page", "_summary", "_elements", "_total", "_totalMethod", "_format", "_contained", "_type"),
    *("_include", "_revinclude", "_include:iterate", "_since", "_at", "start", "_filter"),
]
CHAINED = [
    *(
        "patient.identifier",
        "patient.birthdate",
        "subject:Patient.name",
        "imagingStudy.started",
        "result.value-quantity",
    ),
    *(
        "_has:Observation:patient:code",
        "_has:DiagnosticReport:patient:_has:Provenance:target:agent",
        "patient.link.name",
    ),
    *("based-on.identifier", "part-of.part-of.part-of.part-of.part-of.status", "_has:", "_has:x:y", "patient.", ".."),
]
PATHS = st.one_of(
    st.sampled_from(SEARCHED),
    st.sampled_from(["", "_history", "Patient/_history", "Patient/pat-1/_history", "Patient/pat-1/*", "$export", "x"]),
    st.sampled_from(["Patient/pat-1/$everything", "Patient/pat-1/Observation", "DiagnosticReport/$latest-per-study"]),
)
NAMES = st.one_of(st.sampled_from(ANY_NAME), st.sampled_from(CONTROL), st.sampled_from(CHAINED))
MODIFIERS = st.sampled_from(
    ["", "", "", ":not", ":missing", ":exact", ":contains", ":text", ":Patient", ":identifier", ":in", ":above", ":"]
)
DATES = st.builds(
    "{}{}{}".format,
    st.sampled_from(["", "ge", "ap", "sa", "xx"]),
    st.sampled_from(["2024", "0001", "9999-12-31", "0000-00", "2024-02-30", "2024-01-01T10:00", "9999-12-31T23:59:59"]),
    st.sampled_from(["", "Z", "+14:00", "-12:30", "+99:00", ".9999999999"]),
)
ODD = st.sampled_from(
    [
        *(
            "a|b",
            "|",
            "\\",
            "\\,",
            ",,",
            "true",
            "false",
            "$",
            "a$b",
            "a|b$gt1|c|d",
            "-date",
            "date,-status",
            "\x00",
            "%",
        ),
        *(
            "1e999",
            "-1e-999",
            "NaN",
            "gt1||mL",
            "1|||",
            "DiagnosticReport:subject",
            "Observation:*",
            "count",
            "text",
            "0",
        ),
        *("WyIiLDFd", "WyJkYXRlIiwiMjAyNCIsMV0", "W10", "-1", "99999999999", "Patient/pat-1", "http://x/Patient/pat-1"),
    ]
)
VALUES = st.one_of(st.text(max_size=40), DATES, st.integers().map(str), ODD)
CHECKS = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
QUERIES = st.lists(st.tuples(st.builds("{}{}".format, NAMES, MODIFIERS), VALUES), max_size=5)


@pytest.fixture
def client(store: Store) -> Iterator[httpx.Client]:
    """Give a client of a server with two patients and their results."""
    made.fill(store, 2)
    with served(create_app(store, zone=UTC)) as opened:
        yield opened


@settings(max_examples=200, deadline=None, suppress_health_check=CHECKS)
@given(path=PATHS, pairs=QUERIES, raw=st.text(max_size=60), is_strict=st.booleans(), is_post=st.booleans())
def test_no_query_breaks_the_server(  # noqa: PLR0913, PLR0917 # what Hypothesis draws
    client: httpx.Client, path: str, pairs: list[tuple[str, str]], raw: str, is_strict: bool, is_post: bool
) -> None:
    """Whatever is asked, the answer is a Bundle, or an OperationOutcome with a status of the client's fault."""
    tail = quote(raw, safe="=&;%|:,._-+/")
    query = "&".join(f"{quote(name)}={quote(value, errors='replace')}" for name, value in pairs) + "&" + tail
    headers = {"Prefer": "handling=strict"} if is_strict else {}
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    response = (
        client.post(f"/{path}/_search", content=query.encode(), headers=headers | form)
        if is_post
        else client.get(f"/{path}?{query}", headers=headers)
    )

    assert response.status_code < 500, response.text
    if response.status_code == 200 and "xml" in response.headers["content-type"]:
        assert "<Bundle" in response.text
    elif "json" in response.headers["content-type"]:
        assert response.json()["resourceType"] == ("Bundle" if response.status_code == 200 else "OperationOutcome")


@settings(max_examples=80, deadline=None, suppress_health_check=CHECKS)
@given(
    body=st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=20),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["resourceType", "type", "entry", "request", "method", "url", "x"]), inner
            )
        ),
        max_leaves=12,
    )
    | st.builds(
        lambda kind, method, url: {
            "resourceType": "Bundle",
            "type": kind,
            "entry": [{"request": {"method": method, "url": url}}],
        },
        st.sampled_from(["batch", "transaction", "searchset"]),
        st.sampled_from(["GET", "HEAD", "POST", "BREW"]),
        st.text(max_size=30)
        | st.sampled_from(["Patient?name=%00", "../metadata", "//x/y", "Patient/pat-1#x", "?_type=x"]),
    )
)
def test_no_bundle_breaks_the_server(client: httpx.Client, body: object) -> None:
    """Whatever is posted as a Bundle is answered by a Bundle or by an OperationOutcome."""
    response = client.post("/", json=body, headers={"Content-Type": "application/fhir+json"})

    assert response.status_code < 500, response.text
    assert response.json()["resourceType"] == ("Bundle" if response.status_code == 200 else "OperationOutcome")
