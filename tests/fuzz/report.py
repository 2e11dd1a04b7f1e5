"""What a run found so far, as a file from which the run goes on."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.fuzz.campaign import Findings


@dataclass
class PartReport:
    """What came of one part of a run."""

    done: int = 0
    """Inputs sent."""
    took_s: float = 0.0
    outcomes: dict[str, dict[str, int]] = field(default_factory=dict)
    grown_mib: dict[str, float] = field(default_factory=dict)
    """The most that a process grew, of all that the run started."""
    memory_mib: dict[str, list[float]] = field(default_factory=dict)
    """Of a process after each round; it is another one where the run was begun again."""
    faults: list[str] = field(default_factory=list)

    def plus(self, findings: Findings, done: int, took_s: float) -> PartReport:
        """Return this with what a stretch of inputs brought."""
        outcomes = {path: Counter(counts) for path, counts in self.outcomes.items()}
        for path, counts in findings.outcomes.items():
            outcomes.setdefault(path, Counter()).update(counts)
        grown = {path: max(mib, self.grown_mib.get(path, mib)) for path, mib in findings.grown_mib.items()}
        return PartReport(
            self.done + done,
            round(self.took_s + took_s, 1),
            {path: dict(sorted(counts.items())) for path, counts in sorted(outcomes.items())},
            self.grown_mib | grown,
            self.memory_mib | {path: self.memory_mib.get(path, []) + mib for path, mib in findings.memory_mib.items()},
            [*self.faults, *findings.faults],
        )


@dataclass
class Report:
    """What came of a run."""

    seed: int
    inputs: int
    """Of all parts together."""
    first: int
    parts: dict[str, PartReport]

    def is_of(self, other: Report) -> bool:
        """Say whether both are of the same run."""
        asked = (other.seed, other.inputs, other.first, other.parts.keys())
        return (self.seed, self.inputs, self.first, self.parts.keys()) == asked

    def write(self, file: Path) -> None:
        """Write it, whole at every moment."""
        draft = file.with_name(f".{file.name}")
        draft.write_text(json.dumps(asdict(self), indent=2) + "\n")
        draft.replace(file)


def read(file: Path) -> Report | None:
    """Return what a file holds; None where there is none."""
    if not file.exists():
        return None
    content = json.loads(file.read_text())
    parts = {name: PartReport(**part) for name, part in content.pop("parts").items()}
    return Report(**content, parts=parts)
