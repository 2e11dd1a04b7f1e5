"""What was measured: medians over the repeats, ratios, the table."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from tests.benchmarks.receive.receivers import DCMTK, GATEWAY, ORTHANC, PYNETDICOM

_TARGETS = ((ORTHANC, 2.5, False), (DCMTK, 0.6, True), (PYNETDICOM, 5.0, False))
"""Receiver, how many times as fast ours shall be, whether on average over the counts of associations."""
_LARGE, _MOST_MIB = "200 MiB", 40


@dataclass(frozen=True)
class Run:
    """One case sent to one receiver."""

    case: str
    receiver: str
    associations: int
    instances: int
    megabytes: float
    took_s: float
    """From the first association's beginning to the last one's release."""
    p50_ms: float
    """From a request's first byte to its answer."""
    p95_ms: float
    sender_cpu_s: float
    cpu_s: float
    """Of the receiver, until it does no more: indexing after the answers counts."""
    idle_mib: float
    grown_mib: float
    """Highest resident memory above that before the run."""
    load: float
    """Load average (1 min) before the run."""

    @property
    def per_second(self) -> float:
        """Instances a second."""
        return self.instances / self.took_s


@dataclass(frozen=True)
class Line:
    """Medians of the runs of one case on one receiver with so many associations."""

    case: str
    associations: int
    receiver: str
    runs: int
    per_second: float
    mb_per_second: float
    ratio: float
    """Median, over the repeats, of the base's time through this one's: how many times as fast as the gateway."""
    p50_ms: float
    p95_ms: float
    cpu_ms_each: float
    """CPU milliseconds of the receiver for each instance."""
    grown_mib: float
    load: float


def lines(runs: Sequence[Run], base: str) -> list[Line]:
    """Return a line for each case, number of associations and receiver, in the order of the runs."""
    grouped: defaultdict[tuple[str, int, str], list[Run]] = defaultdict(list)
    for run in runs:
        grouped[run.case, run.associations, run.receiver].append(run)
    return [_line(of_case, grouped[case, associations, base]) for (case, associations, _), of_case in grouped.items()]


def _line(runs: Sequence[Run], of_base: Sequence[Run]) -> Line:
    first = runs[0]
    return Line(
        case=first.case,
        associations=first.associations,
        receiver=first.receiver,
        runs=len(runs),
        per_second=statistics.median(run.per_second for run in runs),
        mb_per_second=statistics.median(run.megabytes / run.took_s for run in runs),
        # Repeat by repeat, because the machine's other work differs from repeat to repeat.
        ratio=statistics.median(ours.per_second / run.per_second for ours, run in zip(of_base, runs, strict=True)),
        p50_ms=statistics.median(run.p50_ms for run in runs),
        p95_ms=statistics.median(run.p95_ms for run in runs),
        cpu_ms_each=1000 * statistics.median(run.cpu_s / run.instances for run in runs),
        grown_mib=max(run.grown_mib for run in runs),
        load=statistics.median(run.load for run in runs),
    )


def table(found: Sequence[Line], base: str) -> str:
    """Return the lines as text."""
    head = f"{'case':9} {'assoc':>5} {'receiver':20} {'inst/s':>8} {'MB/s':>7} {base + ' is':>12} {'p50 ms':>8} "
    rows = [head + f"{'p95 ms':>8} {'CPU ms/inst':>11} {'grown MiB':>9} {'load':>5}"]
    for line in found:
        ratio = "-" if line.receiver == base else f"{line.ratio:.2f} times"
        rows.append(
            f"{line.case:9} {line.associations:5} {line.receiver:20} {line.per_second:8.1f} {line.mb_per_second:7.1f} "
            f"{ratio:>12} {line.p50_ms:8.2f} {line.p95_ms:8.2f} {line.cpu_ms_each:11.2f} {line.grown_mib:9.1f} "
            f"{line.load:5.1f}"
        )
    return "\n".join(rows)


def verdicts(found: Sequence[Line]) -> list[str]:
    """Return a sentence for each target and case, with what was reached."""
    said: list[str] = []
    for case in dict.fromkeys(line.case for line in found):
        of_case = [line for line in found if line.case == case]
        for receiver, wanted, is_average in _TARGETS:
            ratios = [line.ratio for line in of_case if line.receiver == receiver]
            if ratios:
                least, mean = min(ratios), statistics.mean(ratios)
                kind = "on average" if is_average else "at every count of associations"
                sentence = (
                    f"{case}: at least {wanted} times {receiver} {kind}: {least:.2f} at least, {mean:.2f} on average"
                )
                said.append(f"{sentence}, {_word((mean if is_average else least) >= wanted)}")
        if case == _LARGE:
            grown = max((line.grown_mib for line in of_case if line.receiver == GATEWAY), default=0.0)
            said.append(f"{case}: under {_MOST_MIB} MiB above idle: {grown:.1f}, {_word(grown < _MOST_MIB)}")
    return said


def _word(is_reached: bool) -> str:
    return "reached" if is_reached else "not reached"
