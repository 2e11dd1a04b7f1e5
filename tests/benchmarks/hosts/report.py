"""What came of it: a line for each fault, and JSON."""

from __future__ import annotations

import dataclasses
import os
import platform
from datetime import UTC, datetime
from typing import Any

from tests.benchmarks.hosts.campaign import Course, Strike
from tests.benchmarks.hosts.site import Site

HEAD = f"{'fault':34} {'away':>6} {'recovery':>9} {'taken over':>11} {'all':>6} {'lost':>5} {'doubled':>8} {'stuck':>6}"


def line(strike: Strike) -> str:
    """Return the line of a fault; times in seconds."""
    found = strike.found
    return (
        f"{strike.name:34} {strike.away_s:6.1f} {_time(strike.recovery_s):>9} {_time(strike.taken_over_s):>11} "
        f"{_time(strike.all_s):>6} {len(found.lost):5} {len(found.doubled):8} {len(found.stuck):6} {strike.trouble}"
    ).rstrip()


def make_report(site: Site, course: Course) -> dict[str, Any]:
    """Return the whole report."""
    studies, arrivals = site.ledger.studies(), site.ledger.arrivals()
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "seed": site.plan.seed,
        "rabbitmq_nodes": site.plan.rabbitmq_nodes,
        "took_s": round(course.took_s),
        "usual_s": round(course.usual_s, 1),
        "studies": len(studies),
        "acknowledged": sum(len(study.acknowledged) for study in studies),
        "answers_to_c_store": site.ledger.answers(),
        "results_at_pacs": len(arrivals),
        "arrivals_at_pacs": sum(map(len, arrivals.values())),
        "longest_recovery_s": max((strike.recovery_s or 0.0 for strike in course.strikes), default=0.0),
        "is_good": is_good(course),
        "strikes": [dataclasses.asdict(strike) for strike in course.strikes],
    }


def is_good(course: Course) -> bool:
    """Say whether there was a fault, and nothing was lost, doubled, stuck or late."""
    return bool(course.strikes) and all(strike.is_good for strike in course.strikes)


def _time(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.1f}"
