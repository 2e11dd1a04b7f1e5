"""From studies per day to workers, disk and network: `python -m deploy.check.capacity --studies-per-day 800 …`.

The inputs are measured on the site's own studies; `hybridmed_job_stage_seconds{stage="total"}` tells the seconds of a
job. Nothing here is assumed in silence: every line shows its arithmetic.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from dataclasses import dataclass

_DAY_S = 86_400
_YEAR_DAYS = 365


@dataclass(frozen=True, slots=True)
class Load:
    """What a site sends, and what its jobs take."""

    studies_per_day: float
    instances_per_study: float
    instance_kib: float
    job_s: float
    jobs_per_study: float = 1.0
    busiest_hour_share: float = 0.12
    """Of a day's studies."""
    utilisation: float = 0.6
    """Of a worker in the busiest hour: above it, queues grow long (M/M/c)."""
    results_kib: float = 400.0
    """Of a job."""
    kept_years: float = 1.0


def arithmetic(load: Load) -> Iterator[tuple[str, str, str]]:
    """Yield for each need its name, how it is computed, and the number."""
    hourly = load.studies_per_day * load.busiest_hour_share
    jobs = hourly * load.jobs_per_study
    busy = jobs * load.job_s / 3600
    workers = max(1, math.ceil(busy / load.utilisation))
    study_mib = load.instances_per_study * load.instance_kib / 1024
    rate = hourly * load.instances_per_study / 3600
    kept = load.studies_per_day * _YEAR_DAYS * load.kept_years
    size_gib = kept * (study_mib + load.jobs_per_study * load.results_kib / 1024) / 1024
    yield "studies in the busiest hour", f"{load.studies_per_day:g} * {load.busiest_hour_share:g}", f"{hourly:.0f}"
    yield "busy workers", f"{jobs:.0f} jobs * {load.job_s:g} s / 3600 s", f"{busy:.2f}"
    yield "workers (GPUs)", f"ceil({busy:.2f} / {load.utilisation:g})", f"{workers}"
    yield "instances per second", f"{hourly:.0f} * {load.instances_per_study:g} / 3600 s", f"{rate:.1f}"
    yield (
        "network in",
        f"{rate:.1f}/s * {load.instance_kib:g} KiB * 8",
        f"{rate * load.instance_kib * 8 / 1000:.1f} Mbit/s",
    )
    yield (
        "files",
        f"{kept:.0f} studies * ({study_mib:.1f} + {load.jobs_per_study * load.results_kib / 1024:.1f}) MiB",
        f"{size_gib:.0f} GiB",
    )
    yield (
        "index rows",
        f"{kept:.0f} studies * {load.instances_per_study:g}",
        f"{kept * load.instances_per_study:.3g} instances",
    )
    spool = load.studies_per_day * study_mib / 1024
    yield (
        "spool for a day without database or bucket",
        f"{load.studies_per_day:g} * {study_mib:.1f} MiB",
        f"{spool:.0f} GiB",
    )


def main() -> None:
    """Print the arithmetic for a site."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("studies-per-day", "instances-per-study", "instance-kib", "job-s"):
        parser.add_argument(f"--{name}", type=float, required=True)
    for name, default in (
        ("jobs-per-study", 1.0),
        ("busiest-hour-share", 0.12),
        ("utilisation", 0.6),
        ("kept-years", 1.0),
    ):
        parser.add_argument(f"--{name}", type=float, default=default)
    for need, how, number in arithmetic(Load(**vars(parser.parse_args()))):
        print(f"{need:45} {how:45} = {number}")


if __name__ == "__main__":
    main()
