"""What a long work says about itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Progress:
    """One step of a long work, for a progress bar."""

    stage: str
    """'images', 'train', 'calibrate' or 'evaluate'."""
    done: int
    """Images, or steps of the epoch."""
    total: int
    epoch: int = 0
    """From 1; 0 outside training."""
    epochs: int = 0
    figures: Mapping[str, float] = field(default_factory=dict)
    """Mean losses of the epoch so far, and what was last found on the calibration images."""
    logged: Mapping[str, float] = field(default_factory=dict)
    """For the run's log alone: learning rate, mean norm of the gradient before it is clipped, learnt weights."""
