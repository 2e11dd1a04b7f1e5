"""A network with fewer channels inside its residual blocks, which then learns from the one it was made of.

Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017: within a block both convolutions lose the channels whose
weights are smallest; what blocks hand on keeps its width. Which layers hang together is found by torch-pruning (Fang et
al., "DepGraph: Towards Any Structural Pruning", CVPR 2023), which changes shapes and leaves no masks behind.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import nn
from torchvision.models.resnet import BasicBlock

from inference.bundle import BUNDLE_FILE, ENCODINGS, Bundle
from inference.errors import BundleError
from inference.networks.config import HybridMedNetConfig
from inference.networks.hybridmednet import HybridMedNet
from inference.networks.parts import PRUNABLE
from inference.networks.weights import load_network, save_weights
from inference.training.config import read_config
from inference.training.making import Work
from inference.training.teaching import taught

_NO_BLOCKS = f"network.backbone: only {', '.join(PRUNABLE)} have blocks that can be pruned"
_STEP = 8
"""Channels stay a multiple of this (`inference.networks.config`)."""
_LEAST, _MOST = 0.05, 0.9


@dataclass(frozen=True, slots=True)
class Pruning:
    """How much is taken away, and how long is learnt afterwards."""

    ratio: float = 0.3
    """Share of the channels inside each block."""
    epochs: int = 3
    """Of the fine-tuning, in which the network before is the teacher."""
    seed: int = 1

    suffix = "pruned"

    @property
    def title(self) -> str:
        """What it is called in the table of the result."""
        return (
            f"{self.ratio:.0%} of the channels inside blocks pruned, {self.epochs} epochs of learning from the original"
        )

    def check(self, bundle: Bundle) -> None:
        """Raise BundleError where a value does not fit, or the trunk has no blocks that can be pruned."""
        if not _LEAST <= self.ratio <= _MOST:
            raise BundleError(f"the share of channels to prune must lie within {_LEAST} and {_MOST}, not {self.ratio}")
        if bundle.network.get("backbone", HybridMedNetConfig().backbone) not in PRUNABLE:
            raise BundleError(f"{bundle.path / BUNDLE_FILE}: {_NO_BLOCKS}; `--method distilled` takes any")

    def write(self, work: Work) -> None:
        """Prune and train; write the weights and bundle.toml."""
        bundle = work.bundle
        network = load_network(bundle, torch.device("cpu"))
        inner = list(prune(network, self.ratio, bundle.projection.size))
        loop = replace(read_config(bundle).loop, cycles=(self.epochs,), small_epochs=0)
        save_weights(taught(network, work, loop, self.seed, inner), work.weights)
        work.describe(ENCODINGS[0], {**bundle.network, "inner": inner})


def prune(network: HybridMedNet, ratio: float, size: int) -> tuple[int, ...]:
    """Take channels out of the network's blocks, in place.

    Parameters
    ----------
    ratio
        Share of the channels inside each block.
    size
        Side of an image that the network is shown, to find out what hangs together.

    Returns
    -------
    Channels inside each block that are left, as `[network].inner` has them.

    Raises
    ------
    BundleError
        The trunk has no blocks of two convolutions.
    """
    try:
        import torch_pruning  # noqa: PLC0415 # an extra, which int8 needs not
    except ModuleNotFoundError as error:
        advice = "pip install -c constraints.txt 'hybridmed-gateway[training]'"
        raise BundleError(f"{error.name} is not installed: {advice}") from error
    blocks = [module for module in network.backbone.modules() if isinstance(module, BasicBlock)]
    if not blocks:
        raise BundleError(_NO_BLOCKS)
    chosen = {id(block.conv1) for block in blocks}
    kept = [layer for layer in network.backbone.modules() if isinstance(layer, nn.Conv2d) and id(layer) not in chosen]
    network.requires_grad_(True)
    pruner = torch_pruning.pruner.MagnitudePruner(
        network.backbone,
        torch.zeros(1, 1, size, size),
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=ratio,
        ignored_layers=kept,
        round_to=_STEP,
    )
    pruner.step()
    return tuple(int(block.conv1.out_channels) for block in blocks)
