"""Searches drawn from R4's grammar over every type, parameter, modifier, prefix, chain and include.

A few hundred in `make test`; more with `--fhir-searches=20000`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC
from random import Random
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from fhir_facade.app import create_app
from fhir_facade.parameters import SEARCHED
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from gateway.store import Store
from tests import fhir_made as made
from tests.fhir_grammar import Grammar, Held, Pair, written
from tests.unit.fhir import cases
from tests.unit.web.serving import served

_RESULTS = 6
_MOST_PAGES = 200
_CODES = frozenset({"invalid", "not-supported", "too-costly", "not-found"})
"""Of refusals that a search meets."""


@pytest.fixture
def filled(store: Store) -> Store:
    """Give a database with results made by hand, and those that a worker leaves."""
    made.fill(store, _RESULTS)
    cases.commit(store, cases.whole(cases.pneumonia()), replace(cases.RENDERER, site=cases.SITE))
    return store


@pytest.fixture
def client(filled: Store) -> Iterator[httpx.Client]:
    """Give a client of a server over it."""
    with served(create_app(filled, zone=UTC)) as opened:
        yield opened


@pytest.fixture
def held(filled: Store) -> Held:
    """Give what the database holds."""
    return Held.of(filled, Random(1))


@pytest.fixture
def examples(request: pytest.FixtureRequest) -> int:
    """Give how many searches each property is put to."""
    count: int = request.config.getoption("--fhir-searches")
    return count


def run_property(prove: Any, examples: int) -> None:
    """Put a property to as many draws; the same in every run."""
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    bounded = settings(max_examples=examples, deadline=None, suppress_health_check=checks, database=None)
    seed(1)(bounded(given(st.randoms(use_true_random=False), st.booleans())(prove)))()


def test_every_search_is_answered_in_fhir(client: httpx.Client, held: Held, examples: int) -> None:
    """A Bundle with the matches, or an OperationOutcome that says what is wrong; never a fault of the server."""

    def prove(chance: Random, is_strict: bool) -> None:
        address = Grammar(chance, held, odd=0.08).address()
        headers = {"Prefer": "handling=strict"} if is_strict else {}
        path, _, query = address.partition("?")
        is_posted = chance.random() < 0.2 and "$" not in path
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        response = (
            client.post(f"/{path}/_search", content=query, headers=headers | form)
            if is_posted
            else client.get(f"/{address}", headers=headers)
        )

        assert response.status_code < 500, f"{address}: {response.text}"
        require_fhir(response, address)

    run_property(prove, examples)


def require_fhir(response: httpx.Response, address: str) -> None:
    """Fail unless this is the answer to a search."""
    content = response.json()
    if response.status_code != 200:
        assert content["resourceType"] == "OperationOutcome", address
        (issue,) = content["issue"]
        assert issue["severity"] == "error", address
        assert issue["code"] in _CODES, f"{address}: {issue}"
        assert issue["diagnostics"], address
        return
    assert (content["resourceType"], content["type"]) == ("Bundle", "searchset"), address
    links = {link["relation"]: link["url"] for link in content["link"]}
    assert "self" in links, address
    matches = [entry for entry in content.get("entry", ()) if entry["search"]["mode"] == "match"]
    assert len({entry["fullUrl"] for entry in matches}) == len(matches), address
    for entry in matches:
        assert entry["fullUrl"].endswith(f"/{entry['resource']['resourceType']}/{entry['resource']['id']}"), address


def test_pages_hold_each_match_once(client: httpx.Client, held: Held, examples: int) -> None:
    """All pages together hold as many resources as are counted, none of them twice, whatever the order."""

    def prove(chance: Random, is_sorted: bool) -> None:
        grammar = Grammar(chance, held)
        resource_type = chance.choice([each for each in SEARCHED if held.ids.get(each)])
        pairs = [pair for _ in range(chance.randint(0, 2)) for pair in grammar.criterion((resource_type,))]
        sort = [("_sort", grammar.sort((resource_type,)))] if is_sorted else []
        counted = client.get(f"/{resource_type}?{written([*pairs, ('_summary', 'count')])}")

        found = all_pages(client, resource_type, [*pairs, *sort, ("_count", "2")])

        asked = written([*pairs, *sort])
        if found is None:
            assert counted.status_code == 400, f"{resource_type}?{asked}"
            return
        assert len(set(found)) == len(found), f"{resource_type}?{asked}"
        assert counted.json()["total"] == len(found), f"{resource_type}?{asked}"

    run_property(prove, examples // 3)


def test_two_criteria_find_what_each_finds(client: httpx.Client, held: Held, examples: int) -> None:
    """Whichever way the server takes, criteria together find what is found by the one and by the other."""

    def prove(chance: Random, is_sorted: bool) -> None:
        grammar = Grammar(chance, held)
        resource_type = chance.choice([each for each in SEARCHED if held.ids.get(each)])
        first, second = grammar.criterion((resource_type,)), grammar.criterion((resource_type,))
        sort = [("_sort", grammar.sort((resource_type,)))] if is_sorted else []

        one, other, both = (
            all_pages(client, resource_type, [*pairs, ("_count", "50")])
            for pairs in (first, second, [*first, *second, *sort])
        )

        asked = f"{resource_type}?{written([*first, *second, *sort])}"
        if one is None or other is None:
            assert both is None, asked
        else:
            assert sorted(both or ()) == sorted(set(one) & set(other)), asked

    run_property(prove, examples // 3)


def all_pages(client: httpx.Client, resource_type: str, pairs: list[Pair]) -> list[str] | None:
    """Return the ids of all matches, page by page; None where the search is refused."""
    address, found = f"/{resource_type}?{written(pairs)}", []
    for _ in range(_MOST_PAGES):
        response = client.get(address)
        if response.status_code == 400:
            return None
        bundle = response.json()
        found += [entry["resource"]["id"] for entry in bundle.get("entry", ()) if entry["search"]["mode"] == "match"]
        following = [link["url"] for link in bundle["link"] if link["relation"] == "next"]
        if not following:
            return found
        parts = urlsplit(following[0])
        address = f"{parts.path}?{parts.query}"
    raise AssertionError(f"{resource_type}?{written(pairs)} has no last page")
