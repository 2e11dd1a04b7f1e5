"""Break inputs and send them to a receiver over both paths, and to the web server; exit code 1 where one was not borne.

With `--report` a run may end at `--limit-s` and go on when the same command is given again.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from tests.fuzz import campaign, corpus, report, target
from tests.fuzz.campaign import Findings, Tell
from tests.fuzz.report import PartReport, Report
from tests.fuzz.web import campaign as web_campaign
from tests.fuzz.web import target as web_target

_PARTS = ("dicom", "http")
_USAGE = 2


def main() -> int:
    """Run, print what was found as JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000, help="how many inputs, shared by the parts")
    parser.add_argument("--seed", type=int, default=1, help="the same seed breaks the same way")
    parser.add_argument("--first", type=int, default=0, help="number of the first input, to repeat one")
    parser.add_argument("--part", choices=_PARTS, help="this alone")
    parser.add_argument("--odd", type=Path, help="a folder of odd files to begin with, such as that of pydicom-data")
    parser.add_argument("--report", type=Path, help="write what was found here, and go on from what stands there")
    parser.add_argument("--limit-s", type=float, default=float("inf"), help="end after so many seconds")
    arguments = parser.parse_args()
    names = (arguments.part,) if arguments.part else _PARTS
    told = Report(arguments.seed, arguments.inputs, arguments.first, {name: PartReport() for name in names})
    stood = report.read(arguments.report) if arguments.report else None
    if stood is not None:
        if not stood.is_of(told):
            print(f"{arguments.report} is of another run: give its options, or another name", file=sys.stderr)
            return _USAGE
        told = stood
    end_at = time.monotonic() + arguments.limit_s
    for name in names:
        numbers = range(told.first + told.parts[name].done, told.first + told.inputs // len(names))
        if numbers and time.monotonic() < end_at:
            _run_part(name, told, numbers, end_at, arguments)
    said = asdict(told)
    for part in said["parts"].values():
        del part["memory_mib"]  # a number for each round: in the report alone
    print(json.dumps(said, indent=2))
    return 1 if any(part.faults for part in told.parts.values()) else 0


def _run_part(name: str, told: Report, numbers: range, end_at: float, arguments: argparse.Namespace) -> None:
    """Send the inputs of one part, as far as the time allows; what is found goes to the report after each round."""
    began, before, reached = time.monotonic(), told.parts[name], numbers.start

    def tell(following: int, findings: Findings) -> bool:
        nonlocal reached
        reached = following
        now = time.monotonic()
        told.parts[name] = before.plus(findings, reached - numbers.start, now - began)
        if arguments.report:
            told.write(arguments.report)
        print(f"{name}: {told.parts[name].done} inputs, {len(findings.faults)} faults", file=sys.stderr, flush=True)
        return now < end_at

    findings = _RUNNERS[name](told.seed, numbers, tell, arguments.odd)
    told.parts[name] = before.plus(findings, reached - numbers.start, time.monotonic() - began)
    if arguments.report:
        told.write(arguments.report)


def _run_dicom(seed: int, numbers: range, tell: Tell, odd: Path | None) -> Findings:
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder, ExitStack() as stack:
        targets = [stack.enter_context(target.running(Path(folder) / path, path)) for path in ("fast", "stock")]
        return campaign.run(targets, corpus.seeds(odd), seed, numbers, tell)


def _run_http(seed: int, numbers: range, tell: Tell, _odd: Path | None) -> Findings:
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder, web_target.running(Path(folder) / "web") as server:
        return web_campaign.run(server, seed, numbers, tell)


_RUNNERS = {"dicom": _run_dicom, "http": _run_http}


if __name__ == "__main__":
    sys.exit(main())
