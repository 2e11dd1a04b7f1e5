"""What must hold: nothing lost, nobody refused below the limit, everybody above it, nothing grows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from tests.benchmarks.load.sampling import Sample

_GROWTH_MIB = 48.0
_THREADS_LEFT = 4
_SETTLED = 0.3
"""Share of the time after which nothing is loaded for the first time any more."""
_LATE = 0.8


def growth(samples: Sequence[Sample]) -> tuple[float, float]:
    """Return how much memory (MiB) and how many threads the end of the load has more than what it had settled at."""
    first = samples[int(_SETTLED * len(samples)) : int((_SETTLED + 1 - _LATE) * len(samples)) + 1]
    last = samples[int(_LATE * len(samples)) :]
    memory = median(one.rss_mib for one in last) - median(one.rss_mib for one in first)
    return round(memory, 1), median(one.threads for one in last) - median(one.threads for one in first)


def faults(
    counts: Mapping[str, int],
    crowd: Mapping[str, int],
    missing: int,
    samples: Sequence[Sample],
    rest: tuple[Sample, Sample],
) -> list[str]:
    """Return what does not hold.

    Parameters
    ----------
    counts
        Of the senders.
    crowd
        Of the crowd above the limit.
    missing
        Instances that were answered with success and are not in the index.
    samples
        Under load.
    rest
        Before the load, and after it.
    """
    found = []
    if counts.get("refused") or crowd["refused below the limit"]:
        found.append(f"{counts.get('refused', 0) + crowd['refused below the limit']} refused below the limit")
    if crowd["let in above"]:
        found.append(f"{crowd['let in above']} let in above the limit")
    if counts.get("failure"):
        found.append(f"{counts['failure']} instances refused")
    if missing:
        found.append(f"{missing} instances lost")
    memory, threads = growth(samples)
    if memory > _GROWTH_MIB:
        found.append(f"memory grew by {memory} MiB under load")
    if threads > _THREADS_LEFT or rest[1].threads > rest[0].threads + _THREADS_LEFT:
        found.append(f"threads: {threads} more under load, {rest[0].threads} before and {rest[1].threads} after")
    return found
