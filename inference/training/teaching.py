"""A smaller network is trained as the bundle was, with the bundle's own network as the teacher."""

from __future__ import annotations

from dataclasses import asdict, replace

import torch

from inference.device import resolve_device
from inference.networks.hybridmednet import HybridMedNet
from inference.networks.weights import load_network
from inference.training.config import read_config
from inference.training.data import Part
from inference.training.loop import LoopConfig, Task, fit
from inference.training.making import Work
from inference.training.run import load_part


def taught(network: HybridMedNet, work: Work, loop: LoopConfig, seed: int, *settings: object) -> HybridMedNet:
    """Return the network, on the CPU, after learning from the training images and from what the original says of them.

    A run that was cut off goes on where it stood, where it is asked for the same.

    Parameters
    ----------
    loop
        How long and how fast.
    settings
        What else the result depends on.
    """
    bundle = work.bundle
    config = read_config(bundle)
    loss = replace(config.loss, distillation=config.loss.distillation or 1.0)
    task = Task(
        images=load_part(bundle, config, work.data_dir, Part.TRAINING, work.report),
        parents=bundle.parents,
        size=bundle.projection.size,
        margin=bundle.projection.margin,
        loop=loop,
        augmentation=config.augmentation,
        loss=loss,
        seed=seed,
        teacher=load_network(bundle, torch.device("cpu")),
    )
    shown = asdict(config), asdict(bundle.projection)  # which groups and images, and how they are shown
    checkpoint = work.checkpoint(*shown, asdict(loop), asdict(loss), seed, *settings)
    return fit(network, task, checkpoint, device=resolve_device(work.device), report=work.report).cpu()
