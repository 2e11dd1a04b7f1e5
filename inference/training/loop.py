"""Epochs: schedule, moving average of the weights, gradient clipping, checkpoint, resume.

All randomness of an epoch comes from (seed, epoch), so a run that is resumed after its last finished epoch ends with
the weights of a run that was never interrupted.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from inference.errors import BundleError
from inference.networks.heads import ClassLogits
from inference.networks.hybridmednet import HybridMedNet, NetworkOutput
from inference.training.augmentation import AugmentationConfig, Batch, RandomViews
from inference.training.data import Images, batches
from inference.training.losses import LossConfig, Losses, hybrid_loss
from inference.training.precision import Precision
from inference.training.progress import Progress
from inference.training.sampling import epoch_order
from inference.training.task_weights import TaskWeights


@dataclass(frozen=True, slots=True)
class LoopConfig:
    """The `[training]` table of a bundle, without its sub-tables."""

    cycles: tuple[int, ...] = (12,)
    """Epochs of each cycle; at the start of a cycle the learning rate jumps up again (Loshchilov and Hutter, "SGDR",
    ICLR 2017)."""
    batch_size: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 0.02
    warm_up_share: float = 0.08
    """Share of a cycle's steps in which the rate climbs; after it, half a cosine down to nothing."""
    later_rate: float = 0.5
    """Peak rate of the later cycles over that of the first."""
    average_decay: float = 0.995
    """Of the exponential moving average of the weights, per step."""
    gradient_norm: float = 2.0
    small_epochs: int = 6
    """The first epochs, which train on smaller views."""
    small_scale: float = 0.75
    """Side of the smaller views over the input size."""
    precision: str = "float32"
    """One of `inference.training.precision.PRECISIONS`."""
    balance: float = 0.0
    """0: an epoch shows every image once; 1: fine classes equally often; between, in between."""

    @property
    def epochs(self) -> int:
        """Epochs of all cycles."""
        return sum(self.cycles)


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """What is learnt, and how."""

    images: Images
    parents: tuple[int, ...]
    """Coarse class of each fine class."""
    size: int
    margin: float
    loop: LoopConfig
    augmentation: AugmentationConfig
    loss: LossConfig
    seed: int
    teacher: HybridMedNet | None = None
    """Whose answers are learnt, too."""
    watch: Callable[[HybridMedNet], Mapping[str, float]] | None = None
    """Asked after each epoch how well the averaged network does (`inference.training.watching`)."""


def fit(
    network: HybridMedNet,
    task: Task,
    checkpoint: Path,
    *,
    device: torch.device,
    report: Callable[[Progress], None],
) -> HybridMedNet:
    """Train `network`, or go on from `checkpoint`, and return the averaged network.

    Parameters
    ----------
    checkpoint
        Written after every epoch; deleted by nobody.
    """
    run = _Run(network.to(device), task, device)
    first = run.resume(checkpoint)
    views = RandomViews(task.images, task.margin, task.augmentation)
    for epoch in range(first, task.loop.epochs):
        run.epoch(epoch, views, report)
        run.save(checkpoint, epoch + 1)
    averaged: HybridMedNet = run.averaged.module
    return averaged.eval()


class _Run:
    """The mutable state of one training run."""

    def __init__(self, network: HybridMedNet, task: Task, device: torch.device) -> None:
        self.network = network.to(memory_format=torch.channels_last)
        self.task, self.device = task, device
        loop = task.loop
        average_weights = get_ema_multi_avg_fn(loop.average_decay)  # type: ignore[no-untyped-call]  # untyped in torch
        self.averaged: Any = AveragedModel(network, multi_avg_fn=average_weights, use_buffers=True)
        smallest = task.size * min(network.scales) * (loop.small_scale if loop.small_epochs else 1)
        self.precision = Precision(loop.precision, device, int(smallest))
        self.task_weights = TaskWeights(list(task.loss.weights)).to(device) if task.loss.learned_weights else None
        groups = parameter_groups(network, loop.weight_decay)
        if self.task_weights is not None:
            groups.append({"params": list(self.task_weights.parameters()), "weight_decay": 0.0})
        self.optimizer = torch.optim.AdamW(groups, lr=loop.learning_rate)
        self.parameters = [parameter for group in groups for parameter in group["params"]]
        self.teacher = None if task.teacher is None else task.teacher.to(device).eval().requires_grad_(False)
        self.steps_per_epoch = max(len(task.images) // loop.batch_size, 1)
        self.watched: Mapping[str, float] = {}

    def resume(self, checkpoint: Path) -> int:
        """Load `checkpoint` where it exists; return the epochs it has behind it."""
        if not checkpoint.exists():
            return 0
        state = torch.load(checkpoint, map_location=self.device, weights_only=True)
        if state["seed"] != self.task.seed or state["cycles"] != list(self.task.loop.cycles):
            raise BundleError(f"{checkpoint}: made with another seed or other cycles: remove it to start anew")
        self.network.load_state_dict(state["network"])
        self.averaged.load_state_dict(state["averaged"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.precision.load_state_dict(state.get("precision", {}))
        if self.task_weights is not None:
            self.task_weights.load_state_dict(state["task_weights"])
        return int(state["done"])

    def save(self, checkpoint: Path, done: int) -> None:
        """Write the state after `done` epochs, whole or not at all."""
        state = {
            "done": done,
            "seed": self.task.seed,
            "cycles": list(self.task.loop.cycles),
            "network": self.network.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "precision": self.precision.state_dict(),
            "task_weights": {} if self.task_weights is None else self.task_weights.state_dict(),
        }
        partial = checkpoint.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(checkpoint)

    def epoch(self, epoch: int, views: RandomViews, report: Callable[[Progress], None]) -> None:
        """Show every image once."""
        loop, task = self.task.loop, self.task
        torch.manual_seed(self.task.seed * 1_000_003 + epoch)
        generator = np.random.default_rng((self.task.seed, epoch))
        size = round(task.size * loop.small_scale) if epoch < loop.small_epochs else task.size
        self.network.train()
        means: dict[str, float] = {}
        norm = 0.0
        order = epoch_order(task.images.fine, loop.balance, generator)
        for step, indices in enumerate(batches(order, loop.batch_size)):
            batch = views.batch(indices, size, generator)
            losses, found = self.step(batch, epoch * self.steps_per_epoch + step)
            norm += (found - norm) / (step + 1)
            for name in ("total", *task.loss.weights):
                value = float(getattr(losses, name).detach())
                means[name] = means.get(name, value) + (value - means.get(name, value)) / (step + 1)
            if step + 1 == self.steps_per_epoch and task.watch is not None:
                self.watched = task.watch(self.averaged.module)
            figures = {"total": means["total"], **self.watched, **means}
            logged = self._logged(norm)
            report(Progress("train", step + 1, self.steps_per_epoch, epoch + 1, loop.epochs, figures, logged))

    def _logged(self, norm: float) -> dict[str, float]:
        """Return what the log alone is told, given the mean norm of the epoch's gradients."""
        rate = float(self.optimizer.param_groups[0]["lr"])
        learnt = {} if self.task_weights is None else self.task_weights.weights()
        return {
            "learning_rate": rate,
            "gradient_norm": norm,
            **{f"weight_{name}": weight for name, weight in learnt.items()},
        }

    def step(self, batch: Batch, step: int) -> tuple[Losses, float]:
        """Take one step of the optimizer; return the loss and the norm of its gradient."""
        loop = self.task.loop
        rate = loop.learning_rate * schedule(step / self.steps_per_epoch, loop)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        moved = _on(batch, self.device)
        with self.precision.computing():
            output = self.network(moved.image)
            taught = self._taught(moved)
        losses = hybrid_loss(
            _in_float32(output),
            moved,
            self.task.parents,
            self.task.loss,
            teacher=taught,
            task_weights=self.task_weights,
        )
        norm = self.precision.step(losses.total, self.optimizer, self.parameters, loop.gradient_norm)
        self.averaged.update_parameters(self.network)
        return losses, norm

    def _taught(self, batch: Batch) -> NetworkOutput | None:
        """Return what the teacher says of the batch."""
        if self.teacher is None:
            return None
        with torch.no_grad():
            return _in_float32(self.teacher(batch.image))


def _in_float32(output: NetworkOutput) -> NetworkOutput:
    """Return the scores in the precision of the losses."""
    classes, *per_scale = (
        ClassLogits(logits.coarse.float(), logits.fine.float()) for logits in (output.classes, *output.per_scale)
    )
    return NetworkOutput(
        classes,
        tuple(per_scale),
        output.segmentation.float(),
        None if output.described is None else output.described.float(),
        None if output.coarse_alone is None else output.coarse_alone.float(),
        tuple(mixture.float() for mixture in output.mixtures),
    )


def schedule(epochs: float, loop: LoopConfig) -> float:
    """Return the learning rate after `epochs` (a fraction, too), relative to the first peak.

    In each cycle a straight climb, then half a cosine.
    """
    ends = list(accumulate(loop.cycles))
    cycle = min(bisect_right(ends, epochs), len(ends) - 1)
    share = 1 - (ends[cycle] - epochs) / loop.cycles[cycle]
    peak = 1.0 if cycle == 0 else loop.later_rate
    if share < loop.warm_up_share:
        return peak * (share + 1e-3) / (loop.warm_up_share + 1e-3)
    return peak * 0.5 * (1 + math.cos(math.pi * (share - loop.warm_up_share) / (1 - loop.warm_up_share)))


def parameter_groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Decay weights alone, not biases and norms (Loshchilov and Hutter, ICLR 2019; He et al., CVPR 2019)."""
    parameters = list(network.parameters())
    return [
        {"params": [parameter for parameter in parameters if parameter.ndim > 1], "weight_decay": weight_decay},
        {"params": [parameter for parameter in parameters if parameter.ndim <= 1], "weight_decay": 0.0},
    ]


def _on(batch: Batch, device: torch.device) -> Batch:
    """Return `batch` on the device, images with channels last (the faster layout on both CPU and GPU)."""
    return Batch(
        image=batch.image.to(device, memory_format=torch.channels_last),
        lungs=batch.lungs.to(device),
        has_mask=batch.has_mask.to(device),
        is_classified=batch.is_classified.to(device),
        coarse=batch.coarse.to(device),
        fine=batch.fine.to(device),
    )
