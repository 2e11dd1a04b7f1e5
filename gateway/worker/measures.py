"""What a worker measures of its jobs: time by stage, scores for drift, memory of the GPU."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from gateway.job import Claim
from gateway.services import Counters
from gateway.tracing import Carrier, span, trace_id
from inference.findings import Findings, NotEvaluable, Outcome

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
_TENTHS = tuple(tenth / 10 for tenth in range(1, 11))


class Measures:
    """Counts into the heartbeat's counters.

    Parameters
    ----------
    counters
        Of this process.
    """

    def __init__(self, counters: Counters) -> None:
        self._counters = counters

    @contextmanager
    def stage(self, name: str, claim: Claim, carrier: Carrier) -> Iterator[None]:
        """Time one stage of a job, as a span of its trace too; what fails counts as well."""
        began = time.monotonic()
        try:
            with span(f"job.{name}", carrier, job_id=claim.job_id, bundle=claim.bundle):
                yield
        finally:
            self._seconds(name, claim, time.monotonic() - began, carrier)

    def shared(self, name: str, claim: Claim, took_s: float, carrier: Carrier) -> None:
        """Note a job's part of a stage that several went through together."""
        self._seconds(name, claim, took_s, carrier)

    def job_done(self, claim: Claim, outcomes: Sequence[Outcome], took_s: float, carrier: Carrier) -> None:
        """Note a job whose results are committed."""
        self._seconds("total", claim, took_s, carrier)
        for outcome in outcomes:
            if isinstance(outcome, NotEvaluable):
                self._outcome(claim, outcome.code)
            else:
                self._outcome(claim, "")
                self._scores(claim, outcome)
        self._gpu_memory()

    def _seconds(self, stage: str, claim: Claim, took_s: float, carrier: Carrier) -> None:
        labels = {"stage": stage, "bundle": claim.bundle}
        self._counters.observe("hybridmed_job_stage_seconds", took_s, _SECONDS, trace_id=trace_id(carrier), **labels)

    def _outcome(self, claim: Claim, code: str) -> None:
        kind = "not_evaluable" if code else "findings"
        labels = f'bundle="{claim.bundle}",outcome="{kind}",code="{code}"'
        self._counters.add(f"hybridmed_outcomes_total{{{labels}}}")

    def _scores(self, claim: Claim, findings: Findings) -> None:
        """Count the probability of every class: a distribution that moves tells of drift."""
        for finding in findings.findings:
            for each in finding.alternatives:
                labels = {"bundle": claim.bundle, "level": finding.level, "name": each.name}
                self._counters.observe("hybridmed_score", each.probability, _TENTHS, **labels)

    def _gpu_memory(self) -> None:
        torch = sys.modules.get("torch")  # loaded by the model, or there is no device to ask
        if torch is None or not torch.cuda.is_available():
            return
        free, total = torch.cuda.mem_get_info()
        self._counters.set('hybridmed_gpu_memory_bytes{kind="used"}', total - free)
        self._counters.set('hybridmed_gpu_memory_bytes{kind="total"}', total)
