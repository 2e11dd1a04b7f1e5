"""A bundle's network, built and filled from its safetensors file; no other format is read."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from inference.bundle import Bundle
from inference.errors import BundleError
from inference.networks.hybridmednet import HybridMedNet, HybridMedNetConfig

KIND = "hybridmednet"


def build_network(bundle: Bundle) -> HybridMedNet:
    """Return the bundle's network with fresh weights, for training.

    Raises
    ------
    BundleError
        The `[network]` table or the hierarchy does not describe a HybridMedNet.
    """
    file = bundle.path / "bundle.toml"
    if bundle.network.get("kind") != KIND:
        raise BundleError(f"{file}: network.kind: must be {KIND!r}")
    if len(bundle.levels) != 2:  # noqa: PLR2004 -- coarse and fine
        raise BundleError(f"{file}: levels: {KIND} has two")
    try:
        config = HybridMedNetConfig.from_table(bundle.network)
    except (ValueError, TypeError) as error:
        raise BundleError(f"{file}: {error}") from error
    coarse, fine = (len(level.classes) for level in bundle.levels)
    return HybridMedNet(config, coarse, fine, segmentation_classes=1 + len(bundle.segments))


def load_network(bundle: Bundle, device: torch.device) -> HybridMedNet:
    """Return the bundle's trained network on the device, in float32, ready to evaluate.

    Raises
    ------
    BundleError
        The weights are not this network's.
    """
    network = build_network(bundle)
    try:
        state = load_file(bundle.weights_path)
        network.load_state_dict({name: tensor.to(network.state_dict()[name].dtype) for name, tensor in state.items()})
    except (SafetensorError, OSError, RuntimeError, KeyError) as error:
        raise BundleError(f"{bundle.weights_path}: does not fit the network of bundle.toml: {error}") from error
    return network.to(device).eval().requires_grad_(False)


def save_weights(network: HybridMedNet, file: Path) -> None:
    """Write the weights: convolutions and matrices as float16, what is small or a statistic as it is."""
    state = {
        name: tensor.detach().cpu().contiguous().to(torch.float16 if tensor.ndim > 1 else tensor.dtype)
        for name, tensor in network.state_dict().items()
    }
    file.write_bytes(save(state))
