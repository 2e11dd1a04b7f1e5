"""Epochs over patches of volumes: schedule, moving average of the weights, checkpoint, resume.

All randomness of an epoch comes from (seed, epoch), so a run that is resumed after its last finished epoch ends with
the weights of a run that was never interrupted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.losses.dice import DiceLoss
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from inference.errors import BundleError
from inference.networks.hybridmednet3d import HybridMedNet3d
from inference.training.loop import LoopConfig, parameter_groups, schedule
from inference.training.precision import takes_bfloat16_on_cpu
from inference.training.progress import Progress
from inference.training.volume_augmentation import LabelledGrid, RandomPatches
from inference.training.volume_config import VolumeAugmentationConfig, VolumeLoopConfig

_LOSSES = ("total", "dice_loss", "cross_entropy")


@dataclass(frozen=True, slots=True, eq=False)
class VolumeTask:
    """What is learnt, and how."""

    cases: Sequence[LabelledGrid]
    patch: tuple[int, int, int]
    loop: VolumeLoopConfig
    augmentation: VolumeAugmentationConfig
    seed: int
    stage: str
    """What the progress calls it."""


def fit_volumes(
    network: HybridMedNet3d,
    task: VolumeTask,
    checkpoint: Path,
    *,
    device: torch.device,
    report: Callable[[Progress], None],
) -> HybridMedNet3d:
    """Train `network`, or go on from `checkpoint`, and return the averaged network.

    Parameters
    ----------
    checkpoint
        Written after every epoch; deleted by nobody.
    """
    run = _Run(network.to(device), task, device)
    first = run.resume(checkpoint)
    patches = RandomPatches(task.cases, task.patch, task.augmentation)
    for epoch in range(first, task.loop.epochs):
        run.epoch(epoch, patches, report)
        run.save(checkpoint, epoch + 1)
    averaged: HybridMedNet3d = run.averaged.module
    return averaged.eval()


class _Run:
    """The mutable state of one training run."""

    def __init__(self, network: HybridMedNet3d, task: VolumeTask, device: torch.device) -> None:
        self.network = network.train()
        self.task, self.device = task, device
        loop = task.loop
        average_weights = get_ema_multi_avg_fn(loop.average_decay)  # type: ignore[no-untyped-call]  # untyped in torch
        self.averaged: Any = AveragedModel(network, multi_avg_fn=average_weights, use_buffers=True)
        self.optimizer = torch.optim.AdamW(parameter_groups(network, loop.weight_decay), lr=loop.learning_rate)
        self.dice = DiceLoss(softmax=True, include_background=False, batch=True)
        self.cross_entropy = nn.CrossEntropyLoss()
        self.steps_per_epoch = max(loop.samples_per_epoch // loop.batch_size, 1)
        self.is_halved = loop.half_precision and (device.type == "cuda" or takes_bfloat16_on_cpu(network))
        self.rate = LoopConfig(cycles=(loop.epochs,), warm_up_share=loop.warm_up_share)

    def resume(self, checkpoint: Path) -> int:
        """Load `checkpoint` where it exists; return the epochs it has behind it."""
        if not checkpoint.exists():
            return 0
        state = torch.load(checkpoint, map_location=self.device, weights_only=True)
        if (state["seed"], state["epochs"]) != (self.task.seed, self.task.loop.epochs):
            raise BundleError(f"{checkpoint}: made with another seed or other epochs: remove it to start anew")
        self.network.load_state_dict(state["network"])
        self.averaged.load_state_dict(state["averaged"])
        self.optimizer.load_state_dict(state["optimizer"])
        return int(state["done"])

    def save(self, checkpoint: Path, done: int) -> None:
        """Write the state after `done` epochs, whole or not at all."""
        state = {
            "done": done,
            "seed": self.task.seed,
            "epochs": self.task.loop.epochs,
            "network": self.network.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        partial = checkpoint.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(checkpoint)

    def epoch(self, epoch: int, patches: RandomPatches, report: Callable[[Progress], None]) -> None:
        """Show as many patches as an epoch has."""
        loop, task = self.task.loop, self.task
        torch.manual_seed(task.seed * 1_000_003 + epoch)
        generator = np.random.default_rng((task.seed, epoch))
        patches.seed(int(generator.integers(2**31)))
        means: dict[str, float] = {}
        for step, indices in enumerate(_turns(len(task.cases), self.steps_per_epoch, loop.batch_size, generator)):
            image, shares = patches.batch(indices, generator)
            found = self.step(image.to(self.device), shares.to(self.device), epoch * self.steps_per_epoch + step)
            for name, value in found.items():
                means[name] = means.get(name, value) + (value - means.get(name, value)) / (step + 1)
            figures = {name: means[name] for name in _LOSSES}
            logged = {
                "learning_rate": float(self.optimizer.param_groups[0]["lr"]),
                "gradient_norm": means["gradient_norm"],
            }
            report(Progress(task.stage, step + 1, self.steps_per_epoch, epoch + 1, loop.epochs, figures, logged))

    def step(self, image: Tensor, shares: Tensor, step: int) -> dict[str, float]:
        """Take one step of the optimizer; return the loss, its parts and the norm of its gradient."""
        loop = self.task.loop
        for group in self.optimizer.param_groups:
            group["lr"] = loop.learning_rate * schedule(step / self.steps_per_epoch, self.rate)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.is_halved):
            scores = self.network(image)
        scores = scores.float()
        dice, cross_entropy = self.dice(scores, shares), self.cross_entropy(scores, shares)
        loss = dice + cross_entropy
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), loop.gradient_norm)
        self.optimizer.step()
        self.averaged.update_parameters(self.network)
        found = (loss.detach(), dice.detach(), cross_entropy.detach(), norm)
        return dict(zip((*_LOSSES, "gradient_norm"), map(float, found), strict=True))


def _turns(cases: int, steps: int, batch_size: int, generator: np.random.Generator) -> Iterator[list[int]]:
    """Give the cases of each step: all in random order, then all again."""
    rounds = -(-steps * batch_size // cases)
    order = np.concatenate([generator.permutation(cases) for _ in range(rounds)])
    for step in range(steps):
        yield order[step * batch_size : (step + 1) * batch_size].tolist()
