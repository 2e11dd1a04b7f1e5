"""Statements are kept for searches that look alike: they must say what one made afresh would say, and find the same.

`test_fhir_search.py` asks each form of each parameter once; here they are asked again, with other values.
"""

from __future__ import annotations

from datetime import UTC, datetime
from random import Random
from typing import Any
from urllib.parse import parse_qsl

import pytest
import sqlalchemy as sa
from fhir_facade import plan as planning
from fhir_facade.held import Values, kept
from fhir_facade.matching import Clock
from fhir_facade.outcome import FhirError
from fhir_facade.plan import choose, page_statement
from fhir_facade.query import understand
from fhir_facade.search import run_search
from sqlalchemy.engine import Connection

from gateway.store import Store
from tests import fhir_made as made
from tests.fhir_grammar import Grammar, Held, written

_CLOCK = Clock(datetime(2026, 6, 1, tzinfo=UTC), UTC)
_DRAWN = 300
_ALIKE = (
    ("DiagnosticReport?patient=pat-1", "DiagnosticReport?patient=pat-2"),
    ("DiagnosticReport?patient.identifier=P-3", "DiagnosticReport?patient.identifier=P-4"),
    ("DiagnosticReport?date=ge2026-03-01&_count=2", "DiagnosticReport?date=ge2020-01-01T08:00:00Z&_count=5"),
    ("Observation?value-quantity=gt300", "Observation?value-quantity=gt3.5e2"),
    ("Patient?name=mul", "Patient?name=ann"),
)
_UNLIKE = (
    ("DiagnosticReport?code=24627-2", "DiagnosticReport?code=|24627-2"),
    ("DiagnosticReport?code=http://loinc.org|", "DiagnosticReport?code=http://loinc.org|24627-2"),
    ("DiagnosticReport?date=ge2026-03-01", "DiagnosticReport?date=le2026-03-01"),
    ("DiagnosticReport?patient=pat-1", "DiagnosticReport?patient=Patient/pat-1"),
    ("Observation?value-quantity=300||mL", "Observation?value-quantity=300|http://unitsofmeasure.org|mL"),
    ("Patient?name:exact=mul", "Patient?name:contains=mul"),
    ("Patient?name=mul", "Patient?name=mul,ann"),
    ("Patient?birthdate:missing=true", "Patient?birthdate:missing=false"),
)


def _statement(connection: Connection, address: str) -> tuple[sa.Select[Any], sa.Select[Any]]:
    """Return the statement of a search's first page: the kept one, and one made afresh."""
    resource_type, _, query = address.partition("?")
    values = Values()
    plan = choose(connection, understand([resource_type], parse_qsl(query)), values, _CLOCK)
    afresh: Any = page_statement
    return page_statement(values, plan), afresh.__wrapped__(plan)


@pytest.mark.parametrize(("one", "other"), _ALIKE)
def test_searches_that_look_alike_share_a_statement(store: Store, one: str, other: str) -> None:
    """Whatever their values."""
    made.fill(store, 6)
    with store.read() as connection:
        assert _statement(connection, one)[0] is _statement(connection, other)[0]


@pytest.mark.parametrize(("one", "other"), _UNLIKE)
def test_searches_that_differ_in_form_do_not(store: Store, one: str, other: str) -> None:
    """A form decides what is asked."""
    made.fill(store, 6)
    with store.read() as connection:
        assert str(_statement(connection, one)[0]) != str(_statement(connection, other)[0])


def test_a_kept_statement_is_the_one_made_afresh(store: Store) -> None:
    """Of any search that the grammar draws, after many others."""
    made.fill(store, 6)
    grammar = Grammar(Random(7), Held.of(store, Random(7)))
    compared = 0
    with store.read() as connection:
        for _ in range(_DRAWN):
            query = written(grammar.criterion(["DiagnosticReport"]) + grammar.criterion(["DiagnosticReport"]))
            try:
                mine, afresh = _statement(connection, f"DiagnosticReport?{query}")
            except FhirError:
                continue
            assert str(mine) == str(afresh), query
            compared += 1
    assert compared > _DRAWN / 2


def test_values_go_into_a_kept_statement(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is found is what a server that keeps nothing finds."""
    made.fill(store, 6)
    addresses = [each for pair in (*_ALIKE, *_UNLIKE) for each in pair]

    def found() -> list[list[str]]:
        pages = []
        with store.read() as connection:
            for address in addresses:
                resource_type, _, query = address.partition("?")
                page = run_search(connection, understand([resource_type], parse_qsl(query)), _CLOCK)
                pages.append([each.resource_id for each in page.found])
        return pages

    keeping = found()
    for name in ("page_statement", "_few_statement"):
        make = getattr(planning, name).__wrapped__
        monkeypatch.setattr(planning, name, lambda _values, *shape, make=make: make(*shape))
    monkeypatch.setattr("fhir_facade.search.page_statement", planning.page_statement)

    assert keeping == found()
    assert len({tuple(each) for each in keeping}) > 5  # they do not all find the same


def test_searches_of_many_values_are_not_kept() -> None:
    """Their statements are large, and nobody asks them twice."""
    made_of: list[int] = []
    make = kept(lambda shape: made_of.append(shape) or len(made_of))
    few, many = Values(), Values()
    few.hold_each(range(3))
    many.hold_each(range(300))

    for values in (few, few, many, many):
        make(values, 1)

    assert len(made_of) == 3
