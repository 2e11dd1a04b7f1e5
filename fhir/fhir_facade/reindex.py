"""Resources that were stored by an earlier version -> the index of this one.

What a resource is found by is worked out when it is written. A version of this program that knows more search
parameters goes through the stored ones once, in the background; which parameters the index stands for is kept beside
it, as a digest. Until it is done, the new parameters do not find everything.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from dataclasses import asdict
from datetime import tzinfo
from typing import Any

import sqlalchemy as sa
import structlog
from sqlalchemy.engine import Connection

from fhir_facade.index import index_entries
from fhir_facade.parameters import PARAMETERS
from fhir_facade.resource import parse
from gateway.errors import GatewayError
from gateway.store import Store
from gateway.store.engine import insert_ignore
from gateway.store.results import lock_resources
from gateway.store.tables import fhir_index, fhir_index_state, fhir_resource

log = structlog.get_logger()

_BATCH = 200
_KEY = ("parameter", "system", "value", "low", "number", "other_system", "other_value")


def start_reindex(store: Store, zone: tzinfo | None) -> threading.Thread:
    """Bring the index up to date in a thread of its own, which is returned."""
    thread = threading.Thread(target=_reindex_quietly, args=(store, zone), name="fhir-reindex", daemon=True)
    thread.start()
    return thread


def reindex(store: Store, zone: tzinfo | None) -> int:
    """Bring the index up to date and return how many resources it took; 0 where nothing was to be done."""
    digest = parameters_digest()
    with store.read() as connection:
        if connection.scalar(sa.select(fhir_index_state.c.parameters)) == digest:
            return 0
    count, last = 0, 0
    while True:
        with store.read() as connection:
            rows = _next(connection, last)
        if not rows:
            _note_done(store, digest)
            return count
        for number, resource_type, resource_id in rows:
            # One lock at a time: who holds several would wait in a circle with a job that commits its resources.
            with store.write() as connection:
                lock_resources(connection, [(resource_type, resource_id)])
                count += _index_again(connection, number, zone)
        last = rows[-1][0]


def parameters_digest() -> str:
    """Return what tells one set of search parameters from another."""
    return hashlib.sha256(repr(PARAMETERS).encode()).hexdigest()


def _reindex_quietly(store: Store, zone: tzinfo | None) -> None:
    try:
        count = reindex(store, zone)
    except GatewayError as error:
        # The digest stays the old one: the next start begins again.
        log.warning("fhir.reindex_away", reason=str(error))
        return
    if count:
        log.info("fhir.reindexed", resources=count)


def _note_done(store: Store, digest: str) -> None:
    """Write down what the index stands for; processes that start together may do so at once."""
    with store.write() as connection:
        connection.execute(sa.delete(fhir_index_state).where(fhir_index_state.c.parameters != digest))
        insert_ignore(connection, fhir_index_state, [{"parameters": digest}], keys=["parameters"])


def _next(connection: Connection, last: int) -> Sequence[tuple[int, str, str]]:
    """Return number, type and id of the next resources."""
    query = (
        sa.select(fhir_resource.c.id, fhir_resource.c.type, fhir_resource.c.resource_id)
        .where(fhir_resource.c.is_current, fhir_resource.c.id > last)
        .order_by(fhir_resource.c.id)
        .limit(_BATCH)
    )
    return [(row.id, row.type, row.resource_id) for row in connection.execute(query)]


def _index_again(connection: Connection, number: int, zone: tzinfo | None) -> bool:
    """Index a resource; rows of values that are no elements of it stay. False where it was replaced meanwhile."""
    current = (fhir_resource.c.id == number, fhir_resource.c.is_current)
    resource = connection.execute(sa.select(fhir_resource.c.type, fhir_resource.c.body).where(*current)).first()
    if resource is None:
        return False
    made = [asdict(entry) for entry in index_entries(parse(resource.body), zone)]
    keys = {_key(row) for row in made}
    held = connection.execute(sa.select(fhir_index).where(fhir_index.c.resource_pk == number))
    stale = [row.id for row in held if _key(row._mapping) in keys]
    connection.execute(sa.delete(fhir_index).where(fhir_index.c.id.in_(stale)))
    if made:
        rows = [{**row, "resource_pk": number, "type": resource.type} for row in made]
        connection.execute(sa.insert(fhir_index), rows)
    return True


def _key(row: Any) -> tuple[Any, ...]:
    """Return what makes an index row the same as another; the mark of long dates is new and counts for nothing."""
    is_date = row["low"] is not None
    return tuple(None if is_date and name == "value" else row[name] for name in _KEY)
