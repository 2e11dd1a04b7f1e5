"""Whatever a client asks for, the FHIR server answers in FHIR."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC
from urllib.parse import quote

import httpx
import pytest
from fhir_facade.app import create_app
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.store import Store
from tests.unit.fhir import cases
from tests.unit.web.serving import served

REPORTS = "/DiagnosticReport"
NAMES = st.sampled_from(
    [
        *("_id", "_lastUpdated", "_count", "_sort", "_page", "_summary", "_total", "_format", "identifier", "patient"),
        *("subject", "date", "status", "code", "result", "patient.identifier", "patient.birthdate"),
        *("subject:Patient.name", "imagingStudy.started"),
    ]
)
MODIFIERS = st.sampled_from(["", "", "", ":not", ":missing", ":exact", ":contains", ":Patient", ":identifier", ":"])
DATES = st.builds(
    "{}{}{}".format,
    st.sampled_from(["", "ge", "ap", "sa", "xx"]),
    st.sampled_from(["2024", "0001", "9999-12-31", "0000-00", "2024-02-30", "2024-01-01T10:00", "9999-12-31T23:59:59"]),
    st.sampled_from(["", "Z", "+14:00", "-12:30", "+99:00", ".9999999999"]),
)
VALUES = st.one_of(
    st.text(max_size=40), DATES, st.integers().map(str), st.sampled_from(["a|b", "|", "\\", "\\,", ",,"])
)
QUERIES = st.lists(st.tuples(st.builds("{}{}".format, NAMES, MODIFIERS), VALUES), max_size=5)


@pytest.fixture
def client(store: Store) -> Iterator[httpx.Client]:
    """Give a client of a server with one report."""
    cases.commit(store, cases.finished(cases.pneumonia()))
    with served(create_app(store, zone=UTC)) as made:
        yield made


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pairs=QUERIES, raw=st.text(max_size=60), is_strict=st.booleans(), is_post=st.booleans())
def test_no_query_breaks_the_server(
    client: httpx.Client, pairs: list[tuple[str, str]], raw: str, is_strict: bool, is_post: bool
) -> None:
    """Whatever is asked, the answer is a Bundle, or an OperationOutcome with a status of the client's fault."""
    tail = quote(raw, safe="=&;%|:,._-+/")
    query = "&".join(f"{quote(name)}={quote(value, errors='replace')}" for name, value in pairs) + "&" + tail
    headers = {"Prefer": "handling=strict"} if is_strict else {}
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    response = (
        client.post(f"{REPORTS}/_search", content=query.encode(), headers=headers | form)
        if is_post
        else client.get(f"{REPORTS}?{query}", headers=headers)
    )

    assert response.status_code < 500, response.text
    assert response.json()["resourceType"] == ("Bundle" if response.status_code == 200 else "OperationOutcome")
