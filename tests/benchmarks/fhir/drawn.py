"""Some thousand searches drawn from the grammar, each asked once of a server over many reports: which are slow."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from http.client import HTTPConnection
from random import Random
from typing import Any

from tests.benchmarks.fhir.cases import SLOWEST_S
from tests.fhir_grammar import Grammar, Held

_SHOWN = 15
_LONGEST_SHOWN = 300
_LEAST = 20
"""Searches from which on a share of them says something."""


@dataclass
class Drawn:
    """What the searches over one database took."""

    database: str
    reports: int
    statuses: Counter[int] = field(default_factory=Counter)
    took: list[tuple[float, int, str]] = field(default_factory=list)
    """Seconds, status and address of each."""

    @property
    def late(self) -> list[tuple[float, int, str]]:
        """Those that took longer than they may."""
        return [each for each in self.took if each[0] > SLOWEST_S]

    def as_json(self) -> dict[str, Any]:
        """Return the figures, and the slowest searches."""
        slowest = [{"s": s, "status": status, "query": query} for s, status, query in self.slowest()]
        head = {"database": self.database, "reports": self.reports, "searches": len(self.took)}
        figures = {"late": len(self.late), "p50_ms": 1000 * self._quantile(0.5), "p99_ms": 1000 * self._quantile(0.99)}
        return {**head, **figures, "statuses": dict(sorted(self.statuses.items())), "slowest": slowest}

    def slowest(self) -> list[tuple[float, int, str]]:
        """Return those that took longest, the longest first."""
        return sorted(self.took, reverse=True)[:_SHOWN]

    def lines(self) -> Iterator[str]:
        """Yield the figures as text."""
        statuses = ", ".join(f"{count} with {status}" for status, count in sorted(self.statuses.items()))
        head = f"{len(self.took)} drawn searches over {self.reports} reports on {self.database}: {statuses}"
        yield f"{head}; p50 {1000 * self._quantile(0.5):.1f} ms, p99 {1000 * self._quantile(0.99):.1f} ms;"
        yield f"{len(self.late)} slower than {SLOWEST_S:.0f} s; slowest:"
        for seconds, status, query in self.slowest():
            yield f"{seconds:>8.3f} s  {status}  {query[:_LONGEST_SHOWN]}"

    def _quantile(self, share: float) -> float:
        ordered = sorted(seconds for seconds, _, _ in self.took)
        return ordered[int(share * (len(ordered) - 1))] if len(ordered) > _LEAST else max(ordered, default=0.0)


def ask_all(connection: HTTPConnection, held: Held, searches: int, drawn: Drawn, *, seed: int = 1) -> None:
    """Ask them one by one; what is slow is asked once more, since the machine may do other things too."""
    for address in addresses(held, searches, seed):
        seconds, status = _ask(connection, address)
        if seconds > SLOWEST_S:
            seconds = min(seconds, _ask(connection, address)[0])
        drawn.statuses[status] += 1
        drawn.took.append((seconds, status, address))


def addresses(held: Held, searches: int, seed: int) -> Iterable[str]:
    """Yield the same searches for the same seed and database."""
    grammar = Grammar(Random(seed), held)
    return (grammar.address() for _ in range(searches))


def _ask(connection: HTTPConnection, address: str) -> tuple[float, int]:
    began = time.perf_counter()
    connection.request("GET", f"/fhir/{address}")
    response = connection.getresponse()
    body = response.read()
    took = time.perf_counter() - began
    if response.status >= 500:  # HTTP's own number
        raise SystemExit(f"{address}: {response.status} {body[:300]!r}")
    return took, response.status
