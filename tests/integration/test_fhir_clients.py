"""Clients that others wrote search, page, follow references, include and count; what they asked is replayed too."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC

import httpx
import pytest
from fhir_facade.app import create_app

from gateway.store import Store
from tests import fhir_clients
from tests.unit.web.serving import served


@pytest.fixture
def filled(store: Store) -> Iterator[httpx.Client]:
    """Give a client of a server with what the others look for."""
    fhir_clients.fill(store)
    with served(create_app(store, zone=UTC)) as opened:
        yield opened


def test_clients_see_what_they_should(filled: httpx.Client) -> None:
    """Those of fhirpy, fhirclient and fhir-kit-client, each by its own idea of FHIR."""
    base = str(filled.base_url).rstrip("/")

    seen = {name: client(base) for name, client in fhir_clients.CLIENTS.items()}

    assert seen == fhir_clients.SEEN


def test_recorded_calls_are_answered_as_they_were(filled: httpx.Client) -> None:
    """Every request that the clients once made, with status and shape of the answer."""
    recorded = json.loads(fhir_clients.CALLS.read_text(encoding="utf-8"))
    calls = [call for calls in recorded.values() for call in calls]
    answers = [
        filled.request(call["method"], call["address"], headers=call["headers"], content=call.get("body"))
        for call in calls
    ]

    assert len(calls) > 20
    assert [each.status_code for each in answers] == [call["status"] for call in calls]
    assert [fhir_clients.shape(each.content) for each in answers] == [call["shape"] for call in calls]
