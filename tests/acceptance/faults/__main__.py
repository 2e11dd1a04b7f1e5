"""Disturb a gateway under load; exit code 1 where something was lost, doubled, stuck, unseen or not over in time."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.acceptance.faults.campaign import Campaign
from tests.acceptance.faults.report import is_good, make_report
from tests.acceptance.faults.site import Plan, Site


def main() -> int:
    """Run and write the report."""
    parser = argparse.ArgumentParser(prog="python -m tests.acceptance.faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="the same seed chooses the same faults")
    parser.add_argument("--faults", type=int, default=200, help="how many; a pair is two")
    parser.add_argument("--kind", choices=("sqlite", "postgres"), default="sqlite", help="what it stands on")
    parser.add_argument("--per-round", type=int, default=25, help="faults after which the model is compared")
    parser.add_argument("--limit-s", type=float, default=3600, help="after which no further fault is begun")
    parser.add_argument("--only", default="", metavar="PATTERN", help="faults whose name holds it")
    parser.add_argument("--report", type=Path, default=Path("build/faults.json"), help="the JSON file")
    arguments = parser.parse_args()
    plan = Plan(arguments.kind, arguments.seed, second_worker=True)
    with tempfile.TemporaryDirectory(prefix="faults-") as folder, Site(Path(folder), plan) as site:
        campaign = Campaign(
            site,
            faults=arguments.faults,
            per_round=arguments.per_round,
            tell=_tell,
            only=arguments.only,
            limit_s=arguments.limit_s,
            keep=lambda course: _write(arguments.report, make_report(site, course)),
        )
        report = make_report(site, campaign.run())
        log = site.gateway.log_text()
    _write(arguments.report, report)
    if not is_good(report):
        arguments.report.with_suffix(".log").write_text(log)
    told = {name: value for name, value in report.items() if name not in {"strikes", "by_fault", "not_done"}}
    _tell(json.dumps(told, indent=2))
    return 0 if is_good(report) else 1


def _write(path: Path, report: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=2) + "\n")


def _tell(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
