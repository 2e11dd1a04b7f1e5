"""Send studies one at a time, and let the model by itself evaluate the same files, in turn."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import math
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias

import pydicom

from gateway.config import DicomAddress
from gateway.sending import send_files
from tests.acceptance.gateway_process import GatewayProcess
from tests.benchmarks.turnaround import cases, timeline
from tests.benchmarks.turnaround.bare import BARE, Bare
from tests.benchmarks.turnaround.cases import Case
from tests.benchmarks.turnaround.pacs import Stored, Watch
from tests.benchmarks.turnaround.report import Run, lines, table
from tests.services.orthanc import Orthanc

_QUIET_S = 3.0
_ENDS = ("quiet", "count")
_BUNDLES = ("cxr-pneumonia", "ct-lung")
_TARGET_S = 0.3
_LOOK_S = 0.01
_LIMIT_S = 120
_Way: TypeAlias = tuple[float, float, float, Mapping[str, float]]
"""Seconds to the last SR, to the last object and to the job's end; timeline."""


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.turnaround", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="40 slices, once: shows that everything runs")
    parser.add_argument("--out", type=Path, default=Path("build/turnaround-benchmark.json"), help="the JSON file")
    parser.add_argument("--repeats", type=int, help="of every case (5; with --quick 1)")
    parser.add_argument("--quiet", type=float, default=_QUIET_S, help="the quiet period, in seconds (%(default)s)")
    parser.add_argument("--ends", nargs="+", choices=_ENDS, default=_ENDS, help="what ends the wait for more instances")
    parser.add_argument("--bundles", nargs="+", choices=_BUNDLES, default=_BUNDLES, metavar="NAME")
    arguments = parser.parse_args()
    plan = [cases.chest_x_ray(), cases.chest_ct(40) if arguments.quick else cases.chest_ct()]
    plan = [case for case in plan if case.bundle in arguments.bundles]
    repeats = arguments.repeats or (1 if arguments.quick else 5)
    with tempfile.TemporaryDirectory(prefix="turnaround-benchmark-") as folder:
        runs, threads = _measure(plan, arguments.ends, repeats, arguments.quiet, Path(folder))
    found = lines(runs, arguments.quiet)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, {threads} threads"
    print(machine)
    print(table(found))
    print(f"above: to SR less model; wanted: at most {_TARGET_S} s")
    record = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine,
        "quiet_s": arguments.quiet,
        "images": {case.name: case.source for case in plan},
        "lines": [dataclasses.asdict(line) for line in found],
        "runs": [dataclasses.asdict(run) for run in runs],
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(record, indent=2) + "\n")
    print(f"written: {arguments.out}")


@contextlib.contextmanager
def _site(home: Path, quiet_s: float) -> Iterator[tuple[GatewayProcess, Watch]]:
    """Run a PACS, and a whole gateway that delivers to it."""
    pacs = Orthanc(home / "pacs")
    pacs.start()
    destinations = {"HYBRIDMED_DESTINATIONS": f"PACS={pacs.dicom_address}", "HYBRIDMED_QUIET_S": str(quiet_s)}
    gateway = GatewayProcess(home / "gateway", **destinations)
    try:
        gateway.start()
        yield gateway, Watch(pacs)
    finally:
        gateway.stop()
        pacs.close()


def _measure(
    plan: Sequence[Case], ends: Sequence[str], repeats: int, quiet_s: float, folder: Path
) -> tuple[list[Run], int]:
    runs: list[Run] = []
    threads = 0
    with Bare() as bare, _site(folder, quiet_s) as (gateway, watch):
        for case in plan:  # models are loaded before the clock counts
            home = folder / f"{case.bundle}-first"
            files = case.write(home, is_announced=True)
            bare.load(case.bundle)
            _send(gateway, watch, files, 0.0)
        for repeat in range(repeats):
            for case in plan:
                load = os.getloadavg()[0]
                ways: dict[str, _Way] = {}
                spent = None
                # Whoever comes first in one repeat comes last in the next.
                for who in (BARE, *ends) if repeat % 2 else (*ends, BARE):
                    home = folder / f"{case.bundle}-{who}-{repeat}"
                    files = case.write(home, is_announced=who == "count")
                    os.sync()
                    if who == BARE:
                        spent = bare.evaluate(case.bundle, home)
                    else:
                        ways[who] = _send(gateway, watch, files, quiet_s if who == "quiet" else 0.0)
                assert spent is not None
                threads = spent.threads
                runs += [Run(case.name, end, *way, spent.read_s, spent.model_s, load) for end, way in ways.items()]
                for run in runs[-len(ways) :]:
                    print(
                        f"{run.case:16} {run.end:6} model {run.model_s:6.2f} to SR {run.turnaround_s:6.2f} s",
                        file=sys.stderr,
                    )
    return runs, threads


def _send(gateway: GatewayProcess, watch: Watch, files: Sequence[Path], waited_s: float) -> _Way:
    """Send a study; return seconds to the last SR, to the last object and to the job's end, and the timeline."""
    study_uid = str(pydicom.dcmread(files[0], stop_before_pixels=True).StudyInstanceUID)
    offset = gateway.program.log.stat().st_size
    last_response_at = 0.0
    for outcome in send_files(DicomAddress.parse(gateway.address), "BENCHMARK", files):
        last_response_at = time.time()
        if not outcome.is_stored:
            raise RuntimeError(f"{outcome.path}: {outcome.reason}")
    told: Mapping[str, float] = {}
    stored: list[Stored] = []
    while "job.done" not in told or len(stored) < told.get("objects", math.inf):
        if time.time() - last_response_at > _LIMIT_S:
            raise TimeoutError(f"{len(stored)} objects in the PACS within {_LIMIT_S} s\n{gateway.log_tail()}")
        told = timeline.read(gateway.program.log, offset, study_uid, last_response_at)
        if "job.released" in told:  # nothing can be there before, and asking takes from the model's processors
            stored += [each for each in watch.news() if each.study_instance_uid == study_uid]
        time.sleep(_LOOK_S)
    reports = [each.at for each in stored if each.modality == "SR"]
    before = last_response_at + waited_s
    return max(reports) - before, stored[-1].at - before, told["job.done"] - waited_s, told


if __name__ == "__main__":
    main()
