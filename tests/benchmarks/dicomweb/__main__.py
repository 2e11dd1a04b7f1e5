"""Measure both servers in turn, repeat by repeat, so that a slow minute of the machine meets both."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tests.benchmarks.dicomweb import cases, growth, servers
from tests.benchmarks.dicomweb.report import Run, lines, table
from tests.benchmarks.dicomweb.servers import Server

_DICOM = 'multipart/related; type="application/dicom"; transfer-syntax=*'
_JSON = "application/dicom+json"
_CLIENT_TIMEOUT_S = 600


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    studies: int
    slices: int
    side: int
    large_index: int
    repeats: int
    seconds: float
    """Of each run."""


WHOLE = Size(studies=500, slices=500, side=512, large_index=100_000, repeats=5, seconds=5.0)
QUICK = Size(studies=60, slices=20, side=128, large_index=2_000, repeats=1, seconds=0.5)


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.dicomweb", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small and short: shows that everything runs")
    parser.add_argument("--out", type=Path, default=Path("build/dicomweb-benchmark.json"), help="the JSON file")
    parser.add_argument("--repeats", type=int, help="of every case on every server")
    parser.add_argument("--seconds", type=float, help="of each run")
    arguments = parser.parse_args()
    size = QUICK if arguments.quick else WHOLE
    chosen = {name: getattr(arguments, name) for name in ("repeats", "seconds") if getattr(arguments, name)}
    size = dataclasses.replace(size, **chosen)
    with tempfile.TemporaryDirectory(prefix="dicomweb-benchmark-") as folder:
        of_servers = measure_servers(size, Path(folder))
        of_growth = measure_growth(size, Path(folder))
    found, grown = lines(of_servers), lines(of_growth)
    machine = describe_machine()
    print(machine)
    print(table(found, "Orthanc"))
    print(table(grown, f"gateway, {size.studies:,} studies"))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    record = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine,
        "size": dataclasses.asdict(size),
        "servers": [dataclasses.asdict(line) for line in found],
        "growth": [dataclasses.asdict(line) for line in grown],
    }
    arguments.out.write_text(json.dumps(record, indent=2) + "\n")
    print(f"written: {arguments.out}")


def measure_servers(size: Size, folder: Path) -> list[Run]:
    """Measure Orthanc and the gateway over the same studies."""
    made = cases.make(folder / "cases", size.studies, size.slices, size.side)
    series = f"/studies/{made.large_study}/series/{made.large_series}"
    runs: list[Run] = []
    with contextlib.ExitStack() as stack:
        both = [
            stack.enter_context(servers.orthanc(folder / "orthanc", made)),
            stack.enter_context(servers.gateway(folder / "gateway", made)),
        ]
        for repeat in range(size.repeats):
            for case, path, accept in (
                ("QIDO /studies?limit=100", "/studies?limit=100", _JSON),
                # Several hundred queries in turn: the gateway computes each once before it can give a kept answer.
                ("QIDO /studies?limit=100&offset=n", "/studies?limit=100&offset={n}", _JSON),
                ("WADO-RS series", series, _DICOM),
            ):
                for clients in (1, 8):
                    # Whoever comes first in one repeat comes second in the next.
                    for server in both if repeat % 2 else reversed(both):
                        runs.append(_run(case, server, clients, path, accept, size.seconds))
                        _say(runs[-1])
    return runs


def measure_growth(size: Size, folder: Path) -> list[Run]:
    """Measure QIDO over a small and over a large index."""
    queries = [
        f"/studies?limit=100{more}"
        for more in ("", "&offset={n}", "&PatientID=B000040", "&StudyDate=20150101-20151231")
    ]
    runs: list[Run] = []
    with contextlib.ExitStack() as stack:
        both = [
            stack.enter_context(growth.indexed_gateway(folder / f"index-{studies}", studies))
            for studies in (size.studies, size.large_index)
        ]
        for repeat in range(size.repeats):
            for query in queries:
                for server in both if repeat % 2 else reversed(both):
                    case = "QIDO " + query.removeprefix("/studies?limit=100&").removeprefix("/")
                    runs.append(_run(case, server, 1, query, _JSON, size.seconds))
                    _say(runs[-1])
    return runs


def describe_machine() -> str:
    """Say what it ran on, and how busy that was."""
    one, five, _ = os.getloadavg()
    return f"{platform.machine()}, {os.cpu_count()} cores, load average {one:.1f} (1 min) {five:.1f} (5 min)"


def _run(case: str, server: Server, clients: int, path: str, accept: str, seconds: float) -> Run:  # noqa: PLR0913, PLR0917 # one row of the plan
    server.forget_peak()
    command = [sys.executable, "-m", "tests.benchmarks.dicomweb.client", str(server.port), str(seconds), str(clients)]
    ended = subprocess.run(
        [*command, server.root + path, accept], capture_output=True, text=True, timeout=_CLIENT_TIMEOUT_S, check=True
    )
    said = json.loads(ended.stdout)
    if said["failures"]:
        raise RuntimeError(f"{server.name}, {case}: {said['failures'][0]}")
    return Run(
        case=case,
        server=server.name,
        clients=clients,
        latencies_s=_floats(said["latencies_s"]),
        body_bytes=said["bytes"],
        took_s=said["took_s"],
        client_cpu=said["client_cpu"],
        peak_mib=server.peak_mib(),
    )


def _floats(values: Sequence[float]) -> list[float]:
    return [float(value) for value in values]


def _say(run: Run) -> None:
    rate = f"{run.per_second:8.1f} req/s {run.mib_per_second:8.1f} MiB/s"
    print(f"{run.case:34} {run.clients} {run.server:26} {rate}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
