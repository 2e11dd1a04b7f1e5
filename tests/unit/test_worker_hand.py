"""Which prepared jobs go to the device together, and in which order."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

from gateway.broker import JobMessage
from gateway.job import Claim, Priority
from gateway.lease import Lease
from gateway.worker.execution import Prepared
from gateway.worker.hand import InHand, Ready, enqueue, joined
from gateway.worker.model import Inference
from inference.findings import Outcome
from tests.thresholding import Thresholding


class _Batching(Thresholding):
    """Takes several jobs at once."""

    def infer_many(self, inferences: Sequence[Inference], /) -> Sequence[Sequence[Outcome]]:
        """Ask each."""
        return [each() for each in inferences]


@dataclass(frozen=True)
class _Message:
    """A message that no queue gave."""

    message: JobMessage

    def ack(self) -> None:
        """Do nothing."""

    def requeue(self) -> None:
        """Do nothing."""


MODEL, OTHER, ONE_BY_ONE = _Batching(), _Batching(), Thresholding()


def _ready(job_id: str, model: Thresholding = MODEL, *, attempt: int = 1, priority: Priority = "routine") -> Ready:
    now = datetime.now(UTC)
    claim = Claim(job_id, "2.25.1", 1, "bundle", 1, priority, (), attempt, "worker", now)
    prepared = Prepared(claim, model, cast(Any, None), cast(Any, None), lambda: ())
    return Ready(InHand(_Message(JobMessage(job_id, priority)), Lease(claim), 0.0), prepared)


def _names(jobs: Sequence[Ready]) -> list[str]:
    return [each.hand.claim.job_id for each in jobs]


def test_jobs_of_one_model_go_together_as_far_as_they_follow_each_other() -> None:
    """Another model, one that takes single jobs and a job that was tried before end the batch."""
    first, second = _ready("1"), _ready("2")

    assert _names(joined([first, second, _ready("3")])) == ["1", "2", "3"]
    assert _names(joined([first, _ready("3", OTHER), second])) == ["1"]
    assert _names(joined([first, second, _ready("3", attempt=2)])) == ["1", "2"]
    assert _names(joined([_ready("3", attempt=2), first])) == ["3"]
    assert _names(joined([_ready("3", ONE_BY_ONE), _ready("4", ONE_BY_ONE)])) == ["3"]


def test_a_stat_job_goes_before_the_routine_ones() -> None:
    """After other STAT jobs; one that was tried before stays at the end, where it can take no other along."""
    upcoming: list[Ready] = []
    for each in (_ready("1"), _ready("2", priority="stat"), _ready("3"), _ready("4", priority="stat")):
        enqueue(upcoming, each)
    enqueue(upcoming, _ready("5", priority="stat", attempt=2))

    assert _names(upcoming) == ["2", "4", "1", "3", "5"]


def test_a_lease_that_waits_grows_old_later() -> None:
    """The watchdog blames the work that hangs, not what stands in line behind it; yet nothing waits for ever."""
    lease = _ready("1").hand.lease
    time.sleep(0.01)
    aged = lease.age_s

    lease.pause(60.0)
    waiting = lease.age_s
    lease.pause(0.02)
    time.sleep(0.03)
    overdue = lease.age_s
    lease.begin()
    time.sleep(0.01)

    assert aged > 0
    assert waiting < 0 < overdue
    assert 0 < lease.age_s < aged + 10
