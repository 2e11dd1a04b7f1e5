"""What a run leaves behind: `run.json` with its settings, every epoch and its weights, and logs for TensorBoard.

TensorBoard's package is an extra; without it only the JSON is written. A run that goes on after a kill goes on in the
same file: epochs that are done again replace those that stand there.
"""

from __future__ import annotations

import hashlib
import json
import math
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from inference.training.progress import Progress

RUN_FILE = "run.json"
LOGS = "logs"
_NO_FIGURES = ("stage", "epoch", "took_s")

Clock = Callable[[], datetime]


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass
class _Record:
    """The content of `run.json`."""

    bundle: str
    settings: Mapping[str, object]
    seed: int
    device: str
    torch: str = torch.__version__
    python: str = platform.python_version()
    begun_at: list[str] = field(default_factory=list)
    """Of the run, and of each time that it went on."""
    ended_at: str | None = None
    epochs: list[dict[str, Any]] = field(default_factory=list)
    weights: list[dict[str, Any]] = field(default_factory=list)
    """Of each stage: the file, its SHA-256 and the figures of the last epoch."""


class RunLog:
    """Writes down a run; use it as the run's `report`, within its context.

    Parameters
    ----------
    folder
        Where `run.json` and `logs/` are written.
    bundle, settings, seed, device
        What the run is of.
    report
        Who hears of the progress, too.
    now
        The clock.
    """

    def __init__(  # noqa: PLR0913 -- what a run is, by name
        self,
        folder: Path,
        *,
        bundle: str,
        settings: Mapping[str, object],
        seed: int,
        device: str,
        report: Callable[[Progress], None],
        now: Clock = _now,
    ) -> None:
        self._file, self._report, self._now = folder / RUN_FILE, report, now
        self._record = _Record(bundle, settings, seed, device)
        self._take_up()
        self._record.begun_at.append(now().isoformat(timespec="seconds"))
        self._writer = _tensorboard(folder / LOGS)
        self._epoch_began = time.monotonic()

    def __enter__(self) -> RunLog:
        self._write()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._record.ended_at = self._now().isoformat(timespec="seconds")
        self._write()
        if self._writer is not None:
            self._writer.close()

    def __call__(self, step: Progress) -> None:
        """Hear of a step: the last one of an epoch is written down."""
        self._report(step)
        if not step.epoch:
            return
        if step.done == 1:
            self._epoch_began = time.monotonic()
        if step.done < step.total:
            return
        took_s = time.monotonic() - self._epoch_began
        kept = [one for one in self._record.epochs if (one["stage"], one["epoch"]) < (step.stage, step.epoch)]
        others = [one for one in self._record.epochs if one["stage"] != step.stage]
        own = [one for one in kept if one["stage"] == step.stage]
        figures = {**step.figures, **step.logged}
        entry = {"stage": step.stage, "epoch": step.epoch, "took_s": round(took_s, 2), **_rounded(figures)}
        self._record.epochs = [*others, *own, entry]
        if self._writer is not None:
            for name, value in figures.items():
                self._writer.add_scalar(f"{step.stage}/{name}", value, step.epoch)
        self._write()

    def wrote(self, stage: str, weights: Path) -> None:
        """Note which weights, below the run's folder, a stage ended with."""
        last: dict[str, Any] = next((one for one in reversed(self._record.epochs) if one["stage"] == stage), {})
        entry = {
            "stage": stage,
            "file": weights.relative_to(self._file.parent).as_posix(),
            "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
            "figures": {name: value for name, value in last.items() if name not in _NO_FIGURES},
        }
        self._record.weights = [*(one for one in self._record.weights if one["stage"] != stage), entry]
        self._write()

    def _take_up(self) -> None:
        """Go on in the file of an earlier run with the same settings and seed; any other is replaced."""
        try:
            earlier = json.loads(self._file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return
        own = json.loads(json.dumps(asdict(self._record)))
        if earlier.get("ended_at") is None and all(
            earlier.get(name) == own[name] for name in ("bundle", "settings", "seed")
        ):
            self._record.begun_at = list(earlier["begun_at"])
            self._record.epochs = list(earlier["epochs"])
            self._record.weights = list(earlier.get("weights", ()))

    def _write(self) -> None:
        partial = self._file.with_suffix(".partial")
        partial.write_text(json.dumps(asdict(self._record), indent=2) + "\n", encoding="utf-8")
        partial.replace(self._file)


def _rounded(figures: Mapping[str, float]) -> dict[str, float | None]:
    """Return the figures to six significant digits; JSON has no NaN and no infinity: None."""
    return {name: float(f"{value:.6g}") if math.isfinite(value) else None for name, value in figures.items()}


def _tensorboard(folder: Path) -> Any:
    """Return a writer for TensorBoard; None where its package is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 # an extra
    except ModuleNotFoundError:
        return None
    return SummaryWriter(str(folder))
