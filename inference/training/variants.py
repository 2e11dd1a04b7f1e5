"""A bundle and the smaller ones made of it, side by side: what decides, what is gained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from inference.training.evaluation import EvaluationReport
from inference.training.speed import Speed

ACCURACY_FALL = 0.01
"""A fall of coarse or fine accuracy, or of the share that the guards let pass, must be less."""
DICE_FALL = 0.01
"""A fall of the Dice of any segment must be less."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What decides whether a compressed bundle is kept."""

    coarse_accuracy: float
    fine_accuracy: float
    dice: Mapping[str, float]
    """By segment name."""
    answered: float
    """Share of the images that the guards let pass."""
    images: int = 0
    groups: int = 0

    @classmethod
    def of(cls, evaluation: EvaluationReport) -> Figures:
        """Take them from a whole evaluation."""
        return cls(
            coarse_accuracy=evaluation.coarse.accuracy,
            fine_accuracy=evaluation.fine.accuracy,
            dice=evaluation.dice,
            answered=1 - evaluation.not_evaluable / evaluation.images,
            images=evaluation.images,
            groups=evaluation.groups,
        )

    def to_dict(self) -> dict[str, object]:
        """Return plain values, rounded; sub-tables last, as TOML wants it."""
        return {
            "images": self.images,
            "groups": self.groups,
            "coarse_accuracy": round(self.coarse_accuracy, 4),
            "fine_accuracy": round(self.fine_accuracy, 4),
            "answered": round(self.answered, 4),
            "dice": {name: round(value, 4) for name, value in self.dice.items()},
        }

    def falls(self, after: Figures) -> list[str]:
        """Name each figure that falls too far, or of which that is not known, with both values."""
        compared = [
            ("coarse accuracy", self.coarse_accuracy, after.coarse_accuracy, ACCURACY_FALL),
            ("fine accuracy", self.fine_accuracy, after.fine_accuracy, ACCURACY_FALL),
            ("answered share", self.answered, after.answered, ACCURACY_FALL),
            *((f"Dice of {name}", value, after.dice[name], DICE_FALL) for name, value in self.dice.items()),
        ]
        return [
            f"{name} from {then:.4f} to {now:.4f} (allowed: less than {allowed})"
            for name, then, now, allowed in compared
            if not then - now < allowed
        ]


@dataclass(frozen=True, slots=True)
class Variant:
    """One bundle, measured."""

    folder: Path
    name: str
    version: str
    weights_sha256: str
    method: str
    """How it was made smaller; 'original' where it was not."""
    of_sha256: str
    """Weights of the bundle that it was made of; empty where it is the original."""
    bytes: int
    """Size of the weights file."""
    parameters: int
    figures: Figures
    speed: Speed

    def to_table(self) -> dict[str, object]:
        """Return what stands in a `[compression]` table: sizes, speed, figures."""
        sizes = {"bytes": self.bytes, "parameters": self.parameters}
        return {**sizes, **self.speed.to_dict(), **self.figures.to_dict()}

    def to_dict(self) -> dict[str, object]:
        """Return all of it as plain values."""
        named = {key: value for key, value in asdict(self).items() if isinstance(value, str)}
        return {"folder": str(self.folder), **named, **self.to_table()}


@dataclass(frozen=True, slots=True)
class Comparison:
    """A compressed bundle beside the one it was made of."""

    original: Variant
    made: Variant

    def to_table(self) -> dict[str, object]:
        """Return the `[compression]` table of the compressed bundle."""
        return {
            "method": self.made.method,
            "of": self.original.name,
            "of_version": self.original.version,
            "of_sha256": self.original.weights_sha256,
            "before": self.original.to_table(),
            "after": self.made.to_table(),
        }


def in_pairs(variants: Sequence[Variant]) -> list[Comparison]:
    """Return each bundle that was made of another one of them, beside that."""
    by_digest = {variant.weights_sha256: variant for variant in variants}
    return [Comparison(by_digest[made.of_sha256], made) for made in variants if made.of_sha256 in by_digest]
