"""PostgreSQL can answer the indexed searches from its indexes: what joins them has the same collation, and so on.

Small tables are gone through whole whatever indexes there are, so that is made dear; where no index fits, PostgreSQL
goes through the whole table all the same, and the test sees it. What it does at size, `python -m tests.benchmarks.fhir
--plans` shows.
"""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from gateway.store import Store
from tests import fhir_made as made
from tests.fhir_plans import Watched, put_search

SEARCHES = (
    "DiagnosticReport?patient=pat-1",
    "DiagnosticReport?date=ge2026-03-01&date=lt2026-04-01",
    "DiagnosticReport?code=24627-2&_sort=-date",
    "DiagnosticReport?patient.identifier=P-2",
    "DiagnosticReport?patient.name=muller&status=final",
    "DiagnosticReport?imagingStudy.modality=CT&imagingStudy.started=ge2026-03-01",
    "DiagnosticReport?code=24627-2&_include=DiagnosticReport:subject&_include=DiagnosticReport:result",
    "DiagnosticReport?result.device.device-name=cxr&status=final",
    "Patient?identifier=P-2&_revinclude=DiagnosticReport:patient",
    "Patient?_has:DiagnosticReport:patient:code=24627-2&_id=pat-1",
    "Observation?code-value-quantity=118565006$gt99||mL",
)


@pytest.fixture
def watched(postgres_store: Store) -> Watched:
    """Give a database with results, where going through a whole table is dear."""

    @sa.event.listens_for(postgres_store.engine, "begin")
    def _dear(connection: Connection) -> None:
        connection.exec_driver_sql("SET LOCAL enable_seqscan = off")

    made.fill(postgres_store, 6)
    return Watched(postgres_store)


@pytest.mark.parametrize("search", SEARCHES)
def test_an_index_answers(postgres_store: Store, watched: Watched, search: str) -> None:
    """No statement of the search goes through a whole table."""
    put_search(postgres_store, search)

    assert watched.take() == []


def test_a_whole_table_is_seen(postgres_store: Store, watched: Watched) -> None:
    """The proof can fail: no index holds what is asked here."""
    with postgres_store.read() as connection:
        connection.scalar(sa.text("SELECT count(*) FROM fhir_resource WHERE length(body) > 5"))

    assert [table for table, _ in watched.take()] == ["fhir_resource"]
