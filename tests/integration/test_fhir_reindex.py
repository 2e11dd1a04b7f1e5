"""Resources that an earlier version stored are found by the parameters of this one."""

from __future__ import annotations

import threading
from datetime import UTC

import pytest
import sqlalchemy as sa
from fhir_facade.matching import Clock
from fhir_facade.query import understand
from fhir_facade.reindex import reindex
from fhir_facade.search import run_search

from gateway.store import Store
from gateway.store.results import IndexEntry, lock_resources, write_resources
from gateway.store.tables import fhir_index, fhir_index_state
from tests import fhir_made as made
from tests.services.process import HANGS_S, wait_until


def ids(store: Store, resource_type: str, *pairs: tuple[str, str]) -> list[str]:
    """Return what a search finds."""
    with store.read() as connection:
        page = run_search(connection, understand([resource_type], pairs), Clock(made.NOW, UTC))
    return [each.resource_id for each in page.found]


def test_the_index_is_brought_up_to_date_once(store: Store) -> None:
    """New parameters find old resources, values that stand in no element stay, and a second start does nothing."""
    modality = IndexEntry("modality", system="DCM", value="CT")
    with store.write() as connection:
        write_resources(connection, [made.version(made.report(1), [modality])], made.NOW, job_id=None)
    made.write(store, [made.patient(1), made.report(2)])
    with store.write() as connection:
        kept = fhir_index.c.parameter.in_(["subject", "modality", "date"])
        connection.execute(sa.delete(fhir_index).where(~kept))
        connection.execute(sa.update(fhir_index).values(text=None))
    before = ids(store, "DiagnosticReport", ("code:text", "ct"))

    counts = [reindex(store, UTC), reindex(store, UTC)]

    assert before == []
    assert counts == [3, 0]
    assert ids(store, "DiagnosticReport", ("code:text", "ct")) == ["rep-1", "rep-2"]
    assert ids(store, "DiagnosticReport", ("modality", "CT")) == ["rep-1"]
    assert ids(store, "Patient", ("name", "anna")) == ["pat-1"]
    with store.read() as connection:
        query = sa.select(sa.func.count()).where(fhir_index.c.parameter.in_(["subject", "date"]))
        assert connection.scalar(query) == 4


@pytest.mark.parametrize("store", ["postgres_store"], indirect=True)
def test_it_never_waits_in_a_circle_with_what_writes(store: Store) -> None:
    """A job holds its Patient before it takes the rest: the index takes no other lock while it waits for that one."""
    contents = [made.report(number) for number in range(1, 9)] + [made.patient(1)]
    made.write(store, contents)
    names = [(each["resourceType"], each["id"]) for each in contents]
    counts: list[int] = []
    for held in (names[0], names[-1]):
        with store.write() as connection:
            connection.execute(sa.delete(fhir_index_state))
        thread = threading.Thread(target=lambda: counts.append(reindex(store, UTC)))
        with store.write() as connection:
            lock_resources(connection, [held])
            thread.start()
            wait_until(lambda: _waits(store), HANGS_S, "the index waits")
            lock_resources(connection, names)
        thread.join(HANGS_S)

    assert counts == [len(names)] * 2


def _waits(store: Store) -> bool:
    with store.read() as connection:
        query = "SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = database"
        waiting = "WHERE datname = current_database() AND locktype = 'advisory' AND NOT granted"
        return bool(connection.scalar(sa.text(f"{query} {waiting}")))
