"""What came of a campaign, as JSON."""

from __future__ import annotations

import dataclasses
import os
import platform
from collections import defaultdict
from datetime import UTC, datetime
from typing import Any

from tests.acceptance.faults.campaign import Course, Strike
from tests.acceptance.faults.site import Kind, Site


def make_report(site: Site, course: Course) -> dict[str, Any]:
    """Return the report; its lists under `found` are empty where all is well."""
    studies = site.ledger.studies()
    arrivals = site.ledger.arrivals()
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "kind": site.plan.kind,
        "seed": site.plan.seed,
        "faults": course.fault_count,
        "pairs": sum(len(strike.names) > 1 for strike in course.strikes),
        "took_s": round(course.took_s),
        "studies": len(studies),
        "instances": sum(len(study.instances) for study in studies),
        "acknowledged": sum(len(study.acknowledged) for study in studies),
        "answers_to_c_store": site.ledger.answers(),
        "results_at_pacs": len(arrivals),
        "arrivals_at_pacs": sum(map(len, arrivals.values())),
        "removed_by_retention": max((each.removed for each in course.rounds), default=0),
        "taken_by_power": {
            "files cut": site.cut_files,
            "names": site.lost_names,
            "writes of the database": site.undone_writes,
        },
        "longest_recovery_s": max((strike.over_s or 0.0 for strike in course.strikes), default=0.0),
        "found": _found(course),
        "by_fault": _by_fault(course.strikes),
        "missing": course.missing,
        "without_sign": course.without_sign,
        "strikes": [dataclasses.asdict(strike) for strike in course.strikes],
    }


def not_run(kind: Kind, why: str) -> dict[str, Any]:
    """Return the report of a kind of which nothing could be done."""
    return {"kind": kind, "faults": 0, "found": {}, "missing": {f"all faults with {kind}": why}}


def is_good(report: dict[str, Any]) -> bool:
    """Say whether nothing was found."""
    return not any(report["found"].values())


def is_complete(report: dict[str, Any]) -> bool:
    """Say whether every fault could be done."""
    return not report["missing"]


def _found(course: Course) -> dict[str, list[str]]:
    found = {
        name: [each for verdict in course.rounds for each in getattr(verdict, name)]
        for name in ("lost", "doubled", "stuck")
    }
    found["unseen"] = [
        f"{name}: {', '.join(place for place, was in dataclasses.asdict(sight).items() if was is False)}"
        for strike in course.strikes
        for name, sight in strike.seen.items()
        if False in dataclasses.astuple(sight)
    ]
    found["not_over"] = [f"{' and '.join(each.names)}: {each.trouble}" for each in course.strikes if each.trouble]
    return found


def _by_fault(strikes: list[Strike]) -> dict[str, dict[str, Any]]:
    """Return for each fault how often it came, how often it was looked for, and the longest return to ready."""
    by_name: dict[str, list[Strike]] = defaultdict(list)
    for strike in strikes:
        for name in strike.names:
            by_name[name].append(strike)
    return {
        name: {
            "times": len(each),
            "looked_for": sum(name in strike.seen for strike in each),
            "longest_recovery_s": max(strike.over_s or 0.0 for strike in each),
        }
        for name, each in sorted(by_name.items())
    }
