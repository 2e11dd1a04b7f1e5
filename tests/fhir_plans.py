"""How PostgreSQL goes about a search: which of its statements go through a whole table."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

import sqlalchemy as sa
from fhir_facade.matching import Clock
from fhir_facade.query import understand
from fhir_facade.search import run_search
from sqlalchemy.engine import Connection

from gateway.store import Store

_BIG = frozenset({"fhir_resource", "fhir_index"})
Json = dict[str, Any]


class Watched:
    """Explains each statement that a store puts to PostgreSQL, right after it was answered.

    Parameters
    ----------
    store
        What is watched, until the program ends.
    """

    def __init__(self, store: Store) -> None:
        self.scans: list[tuple[str, str]] = []
        """Table that was gone through, and the statement."""
        self._is_asking = False
        sa.event.listen(store.engine, "after_cursor_execute", self._explain)

    def take(self) -> list[tuple[str, str]]:
        """Return what was seen since the last time."""
        taken, self.scans = self.scans, []
        return taken

    def _explain(
        self, connection: Connection, _cursor: Any, statement: str, parameters: Any, _context: Any, is_many: bool
    ) -> None:
        if self._is_asking or is_many or not statement.lstrip().startswith("SELECT"):
            return
        self._is_asking = True
        try:
            answer = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement}", parameters).scalar_one()
        finally:
            self._is_asking = False
        self.scans += [(table, statement) for table in scanned(answer[0]["Plan"])]


def scanned(plan: Json) -> Iterator[str]:
    """Yield the big tables that a plan goes through from beginning to end."""
    if plan["Node Type"] in ("Seq Scan", "Parallel Seq Scan") and plan["Relation Name"] in _BIG:
        yield plan["Relation Name"]
    for each in plan.get("Plans", ()):
        yield from scanned(each)


def put_search(store: Store, address: str) -> None:
    """Put `Type?query` to a store, as the server does."""
    resource_type, _, query = address.partition("?")
    search = understand([resource_type], parse_qsl(query, keep_blank_values=True))
    with store.read() as connection:
        run_search(connection, search, Clock(datetime.now(UTC), UTC))
