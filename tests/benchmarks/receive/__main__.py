"""Send to all receivers in turn, repeat by repeat, so that a slow minute of the machine meets all of them."""

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
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path

from tests.benchmarks.receive import cases, receivers
from tests.benchmarks.receive.cases import Case
from tests.benchmarks.receive.receivers import Receiver
from tests.benchmarks.receive.report import Run, lines, table, verdicts
from tests.benchmarks.receive.usage import Usage

_ASSOCIATIONS = (1, 2, 4, 8)
_SENDER_LIMIT_S = 900
_MEGABYTE = 1_000_000
_START: dict[str, Callable[[Path], AbstractContextManager[Receiver]]] = {
    receivers.GATEWAY: receivers.gateway,
    receivers.STOCK_PATH: lambda home: receivers.gateway(home, HYBRIDMED_RECEIVE_PATH="stock"),
    receivers.ORTHANC: receivers.orthanc,
    receivers.DCMTK: receivers.dcmtk,
    receivers.PYNETDICOM: receivers.pynetdicom,
}


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.receive", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth, once: shows that everything runs")
    parser.add_argument("--out", type=Path, default=Path("build/receive-benchmark.json"), help="the JSON file")
    parser.add_argument("--repeats", type=int, help="of every case on every receiver (5; with --quick 1)")
    parser.add_argument("--receivers", nargs="+", choices=_START, default=list(_START), metavar="NAME")
    parser.add_argument("--cases", nargs="+", metavar="NAME", help="such as '0.5 MiB'")
    parser.add_argument("--associations", nargs="+", type=int, default=_ASSOCIATIONS, metavar="N")
    arguments = parser.parse_args()
    repeats = arguments.repeats or (1 if arguments.quick else 5)
    with tempfile.TemporaryDirectory(prefix="receive-benchmark-") as folder:
        plan = cases.make(Path(folder) / "cases", arguments.quick)
        chosen = [case for case in plan if arguments.cases is None or case.name in arguments.cases]
        runs = [
            run
            for repeat in range(repeats)
            for case in chosen
            for run in _measure(case, arguments.receivers, arguments.associations, Path(folder) / "run", repeat)
        ]
    base = receivers.GATEWAY if receivers.GATEWAY in arguments.receivers else arguments.receivers[0]
    found = lines(runs, base)
    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    print(machine)
    print(table(found, base))
    print("\n".join(verdicts(found) if base == receivers.GATEWAY else ()))
    record = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine,
        "lines": [dataclasses.asdict(line) for line in found],
        "runs": [dataclasses.asdict(run) for run in runs],
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(record, indent=2) + "\n")
    print(f"written: {arguments.out}")


def _measure(case: Case, names: Sequence[str], associations: Sequence[int], home: Path, repeat: int) -> list[Run]:
    """Start the receivers anew and send the case to each with each number of associations."""
    runs: list[Run] = []
    with tempfile.TemporaryDirectory(prefix=home.name, dir=home.parent) as folder, contextlib.ExitStack() as stack:
        started = [stack.enter_context(_START[name](Path(folder) / str(at))) for at, name in enumerate(names)]
        for count in associations:
            # Whoever comes first in one repeat comes last in the next.
            for receiver in started if repeat % 2 else reversed(started):
                runs.append(_send(case, receiver, count, 10 * repeat + count))
                run = runs[-1]
                print(
                    f"{run.case:9} {run.associations} {run.receiver:20} {run.per_second:8.1f} inst/s", file=sys.stderr
                )
    return runs


def _send(case: Case, receiver: Receiver, associations: int, run: int) -> Run:
    os.sync()  # what another receiver has yet to write is not this one's burden
    load = os.getloadavg()[0]
    count = case.count(associations)
    before = receiver.stored()
    command = [sys.executable, "-m", "tests.benchmarks.receive.sender", str(receiver.port), receiver.called_ae]
    command += [case.sop_class_uid, str(case.template), str(count), str(associations), str(run)]
    with Usage(receiver.pid) as usage:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=_SENDER_LIMIT_S, check=False)
    if ended.returncode != 0:
        raise RuntimeError(f"{receiver.name}, {case.name}: {ended.stderr[-500:]}")
    said = json.loads(ended.stdout)
    cpu_s = usage.settled_cpu_s()
    stored = receiver.stored() - before
    if said["failures"] or stored != count:
        raise RuntimeError(f"{receiver.name}, {case.name}: {said['failures']} failures, {stored} of {count} stored")
    return Run(
        case=case.name,
        receiver=receiver.name,
        associations=associations,
        instances=count,
        megabytes=count * case.template.stat().st_size / _MEGABYTE,
        took_s=said["took_s"],
        p50_ms=said["p50_ms"],
        p95_ms=said["p95_ms"],
        sender_cpu_s=said["sender_cpu_s"],
        cpu_s=cpu_s,
        idle_mib=usage.idle_mib,
        grown_mib=usage.grown_mib,
        load=load,
    )


if __name__ == "__main__":
    main()
