"""What the gateway answered and what arrived, written down as it happened: what it is held to."""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field


@dataclass
class SentStudy:
    """A study that a modality sends."""

    uid: str
    instances: dict[str, str]
    """SOP Instance UID -> SHA-256 of the data set."""
    associations: int = 0
    """That began to carry it."""
    acknowledged: set[str] = field(default_factory=set)
    """SOP Instance UIDs that were answered with success."""
    begun_s: float = field(default_factory=time.monotonic)
    """When it was made; monotonic."""

    @property
    def is_whole(self) -> bool:
        """Whether all of it was answered with success."""
        return self.acknowledged == self.instances.keys()

    @property
    def most_revisions(self) -> int:
        """Revisions that it may rightly have: one, unless it came in pieces, with time between them."""
        return 1 if self.associations <= 1 else len(self.instances)


@dataclass(frozen=True, slots=True)
class Arrival:
    """A result that the PACS took and kept."""

    study_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    digest: str
    """SHA-256 of the data set."""
    at_s: float = field(default_factory=time.monotonic)
    """When; monotonic."""


class Ledger:
    """The model; safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._studies: dict[str, SentStudy] = {}
        self._arrivals: list[Arrival] = []
        self._counts: Counter[str] = Counter()

    def begin(self, study: SentStudy) -> None:
        """Note a study before anything of it is sent."""
        with self._lock:
            self._studies[study.uid] = study

    def carry(self, study: SentStudy) -> None:
        """Note that an association carries a study from now on."""
        with self._lock:
            study.associations += 1

    def answer(self, study: SentStudy, sop_instance_uid: str, status: int | None) -> None:
        """Note the answer to a C-STORE; None where none came."""
        with self._lock:
            self._counts["none" if status is None else f"{status:04X}"] += 1
            if status == 0:
                study.acknowledged.add(sop_instance_uid)

    def arrive(self, arrival: Arrival) -> None:
        """Note a result that the PACS keeps."""
        with self._lock:
            self._arrivals.append(arrival)

    def is_acknowledged(self, sop_instance_uid: str) -> bool:
        """Say whether an instance was ever answered with success."""
        with self._lock:
            return any(sop_instance_uid in study.acknowledged for study in self._studies.values())

    def studies(self) -> list[SentStudy]:
        """Return all studies."""
        with self._lock:
            return list(self._studies.values())

    def arrivals(self) -> dict[str, list[Arrival]]:
        """Return what arrived, by SOP Instance UID."""
        found: dict[str, list[Arrival]] = defaultdict(list)
        with self._lock:
            for arrival in self._arrivals:
                found[arrival.sop_instance_uid].append(arrival)
        return found

    def without_result(self) -> int:
        """Return how many whole studies have no result at the PACS yet."""
        with self._lock:
            answered = {arrival.study_uid for arrival in self._arrivals}
            return sum(study.is_whole and study.uid not in answered for study in self._studies.values())

    def answers(self) -> dict[str, int]:
        """Return how many C-STOREs were answered how: status -> count, 'none' where no answer came."""
        with self._lock:
            return dict(sorted(self._counts.items()))
