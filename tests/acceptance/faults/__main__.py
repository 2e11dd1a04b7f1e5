"""Disturb a gateway under load; exit code 1 where something was lost, doubled, stuck, unseen or not over in time.

Exit code 2 where a fault cannot be done here, such as those that need root, a C compiler or RabbitMQ, unless that is
allowed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.acceptance.faults.campaign import Campaign
from tests.acceptance.faults.report import is_complete, is_good, make_report, not_run
from tests.acceptance.faults.site import Kind, Plan, Site
from tests.services.process import ServiceMissingError

_KINDS: Mapping[str, Sequence[Kind]] = {
    "both": ("sqlite", "postgres"),
    "sqlite": ("sqlite",),
    "postgres": ("postgres",),
}
_FOUND, _MISSING = 1, 2
_LONG = {"strikes", "by_fault", "without_sign"}
"""Of a report: in the file alone."""


def main() -> int:
    """Run and write the report."""
    parser = argparse.ArgumentParser(prog="python -m tests.acceptance.faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="the same seed chooses the same faults")
    parser.add_argument("--faults", type=int, default=200, help="how many, over all kinds; a pair is two")
    parser.add_argument("--kind", choices=sorted(_KINDS), default="both", help="what it stands on, half each for both")
    parser.add_argument("--per-round", type=int, default=25, help="faults after which the model is compared")
    parser.add_argument("--limit-s", type=float, default=3600, help="after which no further fault is begun")
    parser.add_argument("--only", default="", metavar="PATTERN", help="faults whose name holds it")
    parser.add_argument("--allow-missing", action="store_true", help="do without faults that cannot be done here")
    parser.add_argument("--report", type=Path, default=Path("build/faults.json"), help="the JSON file")
    arguments = parser.parse_args()
    reports: dict[str, dict[str, Any]] = {}
    kinds = _KINDS[arguments.kind]
    for number, kind in enumerate(kinds):
        faults = arguments.faults * (number + 1) // len(kinds) - arguments.faults * number // len(kinds)

        def keep(report: dict[str, Any], kind: Kind = kind) -> None:
            reports[kind] = report
            _write(arguments.report, reports)

        _tell(f"{kind}: {faults} faults")
        _run(kind, faults, arguments, keep)
    for report in reports.values():
        _tell(json.dumps({name: value for name, value in report.items() if name not in _LONG}, indent=2))
    missing = {name: why for report in reports.values() for name, why in report["missing"].items()}
    for name, why in missing.items():
        _tell(f"NOT DONE: {name}: {why}")
    if not all(map(is_good, reports.values())):
        return _FOUND
    return 0 if arguments.allow_missing or all(map(is_complete, reports.values())) else _MISSING


def _run(kind: Kind, faults: int, arguments: argparse.Namespace, keep: Callable[[dict[str, Any]], None]) -> None:
    """Run a campaign on one kind; what was found so far is kept after each round."""
    plan = Plan(kind, arguments.seed, second_worker=True)
    try:
        with tempfile.TemporaryDirectory(prefix="faults-") as folder, Site(Path(folder), plan) as site:
            campaign = Campaign(
                site,
                faults=faults,
                per_round=arguments.per_round,
                tell=_tell,
                only=arguments.only,
                limit_s=arguments.limit_s / len(_KINDS[arguments.kind]),
                keep=lambda course: keep(make_report(site, course)),
            )
            report = make_report(site, campaign.run())
            log = site.gateway.log_text()
    except ServiceMissingError as error:
        keep(not_run(kind, str(error)))
        return
    keep(report)
    if not is_good(report):
        arguments.report.with_suffix(f".{kind}.log").write_text(log)


def _write(path: Path, report: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=2) + "\n")


def _tell(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
