"""Jobs in hand, and which of them go to the device together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import takewhile

from gateway.broker import Received
from gateway.job import Claim
from gateway.lease import Lease
from gateway.worker.execution import Prepared
from gateway.worker.model import Together


@dataclass(frozen=True, slots=True, eq=False)
class InHand:
    """A message, and the lease on the job that it names."""

    received: Received
    lease: Lease[Claim]
    claimed_at: float
    """Monotonic."""
    spent: dict[str, float] = field(default_factory=dict)
    """Seconds of each stage: 'infer_s' and so on."""

    @property
    def claim(self) -> Claim:
        """Which job it is."""
        return self.lease.claim


@dataclass(frozen=True, slots=True, eq=False)
class Ready:
    """A job in hand, prepared."""

    hand: InHand
    prepared: Prepared

    @property
    def is_first_try(self) -> bool:
        """Whether it ended no worker yet, as far as anyone knows."""
        return self.hand.claim.attempt == 1 and self.hand.claim.device_losses == 0

    @property
    def is_stat(self) -> bool:
        """Whether it goes before others."""
        return self.hand.received.message.priority == "stat"

    def joins(self, other: Ready) -> bool:
        """Say whether both may be evaluated in one call: one that was tried before might take the other along."""
        model = self.prepared.model
        are_first = self.is_first_try and other.is_first_try
        return are_first and model is other.prepared.model and isinstance(model, Together)


def joined(upcoming: Sequence[Ready]) -> list[Ready]:
    """Return those at the head of the queue that go to the device in one call."""
    return [upcoming[0], *takewhile(upcoming[0].joins, upcoming[1:])]


def enqueue(upcoming: list[Ready], taken: Ready) -> None:
    """Put a job behind the others; a STAT job before the routine ones, unless it might take them along."""
    goes_first = taken.is_stat and taken.is_first_try
    place = next((index for index, each in enumerate(upcoming) if goes_first and not each.is_stat), len(upcoming))
    upcoming.insert(place, taken)
