"""Reads and searches beside a bare route, request by request in turn, so that a slow minute meets both.

With `--searches` instead: so many searches drawn from the grammar, over the larger size; the slowest with their query.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from gateway.store import open_store
from gateway.store.schema import upgrade
from tests.benchmarks.fhir.cases import CASES, EVERY_KIND, SLOWEST_S
from tests.benchmarks.fhir.drawn import Drawn, ask_all
from tests.benchmarks.fhir.filling import fill
from tests.fhir_grammar import Held
from tests.fhir_plans import Watched, put_search
from tests.services import postgres
from tests.services.process import free_port

_WARMING = 20
_PAGE = re.compile(rb"_page=[\w-]+")
"""Which way the server took to a page is its own affair."""
_START_TIMEOUT_S = 60


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    reports: tuple[int, int]
    requests: int
    """Of every case to either server."""


DATABASES = ("sqlite", "postgresql")
WHOLE = Size((1_000, 100_000), 400)
QUICK = Size((200, 2_000), 40)


def main() -> None:
    """Measure, print the tables, write the JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.fhir", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small and short: shows that everything runs")
    parser.add_argument("--out", type=Path, default=Path("build/fhir-benchmark.json"), help="the JSON file")
    parser.add_argument("--only", choices=DATABASES, help="one database")
    parser.add_argument("--requests", type=int, help="of every case to either server")
    parser.add_argument("--searches", type=int, help="draw so many from the grammar instead; the slowest are printed")
    parser.add_argument("--plans", action="store_true", help="say instead which searches PostgreSQL scans tables for")
    parser.add_argument("--seed", type=int, default=1, help="the same seed draws the same searches")
    arguments = parser.parse_args()
    size = QUICK if arguments.quick else WHOLE
    if arguments.plans:
        explain(size.reports[-1])
        return
    if arguments.searches:
        names = [each for each in DATABASES if arguments.only in (None, each)]
        draw(names, size.reports[-1], arguments.searches, arguments.seed, arguments.out)
        return
    requests = arguments.requests or size.requests
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    found: list[Any] = []
    kinds: list[Any] = []
    for name in DATABASES:
        for count in size.reports if arguments.only in (None, name) else ():
            measured, slow = measure(name, count, requests, with_kinds=count == size.reports[-1])
            found += measured
            kinds += slow
            # After each database: what was measured stays, whatever becomes of the rest.
            document = {"machine": machine, "requests": requests, "cases": found, "kinds": kinds}
            arguments.out.parent.mkdir(parents=True, exist_ok=True)
            arguments.out.write_text(json.dumps(document, indent=1), encoding="utf-8")
    print(report(found, kinds, size.reports, machine))  # a command that prints


def measure(name: str, count: int, requests: int, *, with_kinds: bool) -> tuple[list[Any], list[Any]]:
    """Return what the cases took over a database of as many reports, and what each kind of query took once."""
    with tempfile.TemporaryDirectory(prefix="fhir-benchmark-") as folder, _database(name, folder) as url:
        store = open_store(url, Path(folder))
        upgrade(store)
        fill(store, count)
        store.close()
        with _server(url, folder) as connection:
            found = [_case(connection, name, count, case, requests) for case in CASES]
            kinds = [_kind(connection, name, query) for query in EVERY_KIND] if with_kinds else []
    return found, kinds


def explain(count: int) -> None:
    """Print of each search whether PostgreSQL answers it from indexes, over as many reports."""
    chance = random.Random(1)
    cases = [CASES[name](chance, count).fhir.removeprefix("/fhir/") for name in CASES if name != "read"]
    kinds = [each for each in EVERY_KIND if each[0].isupper() and "/" not in each.partition("?")[0]]
    with tempfile.TemporaryDirectory(prefix="fhir-benchmark-") as folder, _database("postgresql", folder) as url:
        store = open_store(url, Path(folder))
        upgrade(store)
        fill(store, count)
        watched = Watched(store)
        for address in [*cases, *kinds]:
            put_search(store, address)
            tables = sorted({table for table, _ in watched.take()})
            print(f"{'whole ' + ', '.join(tables) if tables else 'indexes':<24} {address}", flush=True)
        store.close()


def draw(names: Sequence[str], count: int, searches: int, seed: int, out: Path) -> None:
    """Ask searches drawn from the grammar over as many reports; print the slowest, write the JSON beside `out`."""
    found = []
    for name in names:
        with tempfile.TemporaryDirectory(prefix="fhir-benchmark-") as folder, _database(name, folder) as url:
            store = open_store(url, Path(folder))
            upgrade(store)
            fill(store, count)
            held = Held.of(store, random.Random(seed))
            store.close()
            drawn = Drawn(name, count)
            with _server(url, folder) as connection:
                ask_all(connection, held, searches, drawn, seed=seed)
        print("\n".join(drawn.lines()), flush=True)  # a command that prints
        found.append(drawn.as_json())
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_stem(f"{out.stem}-searches").write_text(json.dumps(found, indent=1), encoding="utf-8")


def _case(connection: HTTPConnection, name: str, count: int, case: str, requests: int) -> dict[str, Any]:
    chance = random.Random(case)  # the same requests in every run
    took: dict[str, list[float]] = {"fhir": [], "bare": []}
    for at in range(requests + _WARMING):
        asked = CASES[case](chance, count)
        first = [("fhir", asked.fhir), ("bare", asked.bare)]
        bodies = {}
        for server, address in first if at % 2 else first[::-1]:
            seconds, bodies[server] = _get(connection, address)
            if at >= _WARMING:
                took[server].append(seconds)
        if _PAGE.sub(b"", bodies["fhir"]) != _PAGE.sub(b"", bodies["bare"]):
            raise SystemExit(f"{case}: the two answer differently to {asked.fhir}")
    figures: dict[str, Any] = {"database": name, "reports": count, "case": case}
    for server, seconds_taken in took.items():
        figures[f"{server}_per_s"] = len(seconds_taken) / sum(seconds_taken)
        figures[f"{server}_p95_ms"] = 1000 * statistics.quantiles(seconds_taken, n=20)[-1]
    # Medians: a request that the machine held up for other reasons counts for neither.
    figures["of_bare"] = statistics.median(took["bare"]) / statistics.median(took["fhir"])
    return figures


def _kind(connection: HTTPConnection, name: str, query: str) -> dict[str, Any]:
    """Return what a kind of query took; the best of two, since the machine may do other things too."""
    address = f"/fhir/{query}"
    return {"database": name, "query": query, "s": min(_get(connection, address)[0] for _ in range(2))}


def _get(connection: HTTPConnection, address: str) -> tuple[float, bytes]:
    began = time.perf_counter()
    connection.request("GET", address)
    response = connection.getresponse()
    body = response.read()
    took = time.perf_counter() - began
    if response.status != 200:  # HTTP's own number
        raise SystemExit(f"{address}: {response.status} {body[:300]!r}")
    return took, body


@contextlib.contextmanager
def _database(name: str, folder: str) -> Iterator[str]:
    if name == "sqlite":
        yield f"sqlite:///{folder}/hybridmed.db"
        return
    server = postgres.obtain()
    try:
        with postgres.database(server.port) as url:
            yield url
    finally:
        server.close()


@contextlib.contextmanager
def _server(url: str, folder: str) -> Iterator[HTTPConnection]:
    port = free_port()
    command = [sys.executable, "-m", "tests.benchmarks.fhir.serving", url, folder, str(port)]
    process = subprocess.Popen(command)
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                connection.connect()
                break
            time.sleep(0.1)
        yield connection
    finally:
        connection.close()
        process.terminate()
        process.wait(timeout=30)


def report(found: Sequence[Any], kinds: Sequence[Any], sizes: Sequence[int], machine: str) -> str:
    """Return the tables as text."""
    lines = [f"{machine}", ""]
    heads = ("database", "reports", "case", "fhir/s", "bare/s", "of bare", "p95 ms", "bare p95", "p95 grows")
    lines.append("{:<11}{:>8}  {:<8}{:>8}{:>8}{:>9}{:>8}{:>10}{:>11}".format(*heads))
    small = {(each["database"], each["case"]): each["fhir_p95_ms"] for each in found if each["reports"] == sizes[0]}
    for each in found:
        grows = each["fhir_p95_ms"] / small[each["database"], each["case"]]
        lines.append(
            f"{each['database']:<11}{each['reports']:>8}  {each['case']:<8}{each['fhir_per_s']:>8.0f}"
            f"{each['bare_per_s']:>8.0f}{each['of_bare']:>9.2f}{each['fhir_p95_ms']:>8.1f}"
            f"{each['bare_p95_ms']:>10.1f}{grows:>11.2f}"
        )
    slowest = sorted(kinds, key=lambda each: -each["s"])[:12]
    late = sum(each["s"] > SLOWEST_S for each in kinds)
    lines += ["", f"{len(kinds)} kinds of query at {sizes[-1]} reports, {late} slower than {SLOWEST_S:.0f} s; slowest:"]
    lines += [f"{each['s']:>8.3f} s  {each['database']:<11} {each['query']}" for each in slowest]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
