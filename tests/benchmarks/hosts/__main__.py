"""Strike one host after another; exit code 1 where something was lost, doubled, stuck or not over in time."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
from pathlib import Path

from tests.benchmarks.hosts.campaign import Campaign
from tests.benchmarks.hosts.report import HEAD, is_good, line, make_report
from tests.benchmarks.hosts.site import Plan, Site
from tests.services.network import why_not


def main() -> int:
    """Run, print a line for each fault, write the report."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.hosts", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="the same seed sends and strikes in the same order")
    parser.add_argument("--faults", type=int, help="how many; each once without it")
    parser.add_argument("--only", default="", metavar="PATTERN", help="faults whose name holds it")
    parser.add_argument("--rabbitmq-nodes", type=int, choices=(1, 3), default=3, help="nodes of the RabbitMQ cluster")
    parser.add_argument("--limit-s", type=float, default=1800, help="after which no further fault is begun")
    parser.add_argument("--report", type=Path, default=Path("build/hosts.json"), help="the JSON file")
    arguments = parser.parse_args()
    reason = why_not()
    if reason:
        sys.exit(reason)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # so that no host stays behind
    arguments.report.parent.mkdir(parents=True, exist_ok=True)
    plan = Plan(arguments.seed, arguments.rabbitmq_nodes)
    with tempfile.TemporaryDirectory(prefix="hosts-") as folder, Site(Path(folder), plan) as site:
        print(HEAD, flush=True)
        campaign = Campaign(
            site,
            most=arguments.faults,
            only=arguments.only,
            limit_s=arguments.limit_s,
            tell=lambda strike: print(line(strike), flush=True),
        )
        course = campaign.run()
        report = make_report(site, course)
        if not is_good(course):
            site.keep_logs(arguments.report.with_suffix(".logs"))
    arguments.report.write_text(json.dumps(report, indent=2) + "\n")
    for strike in course.strikes:
        for each in (*strike.found.lost, *strike.found.doubled, *strike.found.stuck):
            print(f"{strike.name}: {each}")
    told = {name: value for name, value in report.items() if name != "strikes"}
    print(json.dumps(told, indent=2))
    return 0 if is_good(course) else 1


if __name__ == "__main__":
    sys.exit(main())
