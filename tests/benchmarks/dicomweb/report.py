"""What was measured: medians over the repeats, ratios, the table."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

_MIB = 1 << 20


@dataclass(frozen=True)
class Run:
    """One run of the client against one server."""

    case: str
    server: str
    clients: int
    latencies_s: Sequence[float]
    """Sorted."""
    body_bytes: int
    took_s: float
    client_cpu: float
    """Share of one core that the client took."""
    peak_mib: float
    """Highest resident memory of the server during the run."""

    @property
    def per_second(self) -> float:
        """Answers a second."""
        return len(self.latencies_s) / self.took_s

    @property
    def mib_per_second(self) -> float:
        """MiB of answers' bodies a second."""
        return self.body_bytes / _MIB / self.took_s

    @property
    def p95_ms(self) -> float:
        """The time under which 95 of 100 answers were complete, in ms."""
        return 1000 * self.latencies_s[min(len(self.latencies_s) - 1, int(0.95 * len(self.latencies_s)))]


@dataclass(frozen=True)
class Line:
    """Medians of the runs of one case on one server."""

    case: str
    server: str
    clients: int
    runs: int
    per_second: float
    mib_per_second: float
    p50_ms: float
    p95_ms: float
    peak_mib: float
    client_cpu: float


def lines(runs: Sequence[Run]) -> list[Line]:
    """Return a line for each case, number of clients and server, in the order of the runs."""
    grouped: defaultdict[tuple[str, int, str], list[Run]] = defaultdict(list)
    for run in runs:
        grouped[run.case, run.clients, run.server].append(run)
    return [
        Line(
            case=case,
            server=server,
            clients=clients,
            runs=len(of_case),
            per_second=statistics.median(run.per_second for run in of_case),
            mib_per_second=statistics.median(run.mib_per_second for run in of_case),
            p50_ms=1000 * statistics.median(statistics.median(run.latencies_s) for run in of_case),
            p95_ms=statistics.median(run.p95_ms for run in of_case),
            peak_mib=max(run.peak_mib for run in of_case),
            client_cpu=statistics.median(run.client_cpu for run in of_case),
        )
        for (case, clients, server), of_case in sorted(grouped.items(), key=lambda each: each[0][:2])
    ]


def table(found: Sequence[Line], base: str) -> str:
    """Return the lines as text; the ratio is that of the rate to the rate of `base` in the same case."""
    rates = {(line.case, line.clients): line.per_second for line in found if line.server == base}
    head = f"{'case':34} {'clients':>7} {'server':26} {'req/s':>9} {'MiB/s':>8} {'p50 ms':>8} {'p95 ms':>8} "
    rows = [head + f"{'ratio':>6} {'peak MiB':>8} {'client':>6}"]
    for line in found:
        of_base = rates.get((line.case, line.clients))
        ratio = f"{line.per_second / of_base:.2f}" if of_base else "-"
        rows.append(
            f"{line.case:34} {line.clients:7} {line.server:26} {line.per_second:9.1f} {line.mib_per_second:8.1f} "
            f"{line.p50_ms:8.2f} {line.p95_ms:8.2f} {ratio:>6} {line.peak_mib:8.0f} {line.client_cpu:6.2f}"
        )
    return "\n".join(rows)
