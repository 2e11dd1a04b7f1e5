"""A bundle's network, built and filled from its safetensors file; no other format is read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load, load_file, save
from torch import Tensor, nn

from inference.bundle import Bundle
from inference.errors import BundleError
from inference.network_table import read_image_network, read_volume_network
from inference.networks import graph_network
from inference.networks.hybridmednet import HybridMedNet
from inference.networks.hybridmednet3d import HybridMedNet3d
from inference.pinned import read_pinned

Network = TypeVar("Network", HybridMedNet, HybridMedNet3d)
_SCALE = ".scale"
_LARGEST = 127
"""Symmetric: -128 is not used."""


def build_network(bundle: Bundle) -> HybridMedNet:
    """Return the bundle's network with fresh weights, for training.

    Raises
    ------
    BundleError
        The `[network]` table or the hierarchy does not describe a HybridMedNet.
    """
    config = read_image_network(bundle.network_table, len(bundle.levels))
    coarse, fine = (len(level.classes) for level in bundle.levels)
    return HybridMedNet(config, coarse, fine, 1 + len(bundle.segments), bundle.parents)


def load_network(bundle: Bundle, device: torch.device) -> HybridMedNet:
    """Return the bundle's trained network on the device, ready to evaluate: in float32, or as its encoding says.

    Raises
    ------
    BundleError
        The weights are not this network's or were changed since the bundle was loaded, or what its encoding needs is
        not installed.
    """
    if bundle.encoding == graph_network.ENCODING:
        return graph_network.load_graph_network(bundle, build_network(bundle), device)
    return _filled(build_network(bundle), bundle).to(device)


def build_volume_network(bundle: Bundle) -> HybridMedNet3d:
    """Return the network of a bundle for volumes with fresh weights, for training.

    Raises
    ------
    BundleError
        The `[network]` table does not describe a HybridMedNet3d.
    """
    config = read_volume_network(bundle.network_table, bundle.volume.patch)
    return HybridMedNet3d(config, classes=1 + len(bundle.segments))


def load_volume_network(bundle: Bundle, device: torch.device, weights: Path | None = None) -> HybridMedNet3d:
    """Return the trained network of a bundle for volumes, in float32, ready to evaluate.

    Parameters
    ----------
    weights
        Other weights than the bundle's own: those of a fold.

    Raises
    ------
    BundleError
        The weights are not this network's, or the bundle's own were changed since it was loaded.
    """
    if bundle.encoding == graph_network.ENCODING:
        raise BundleError(f"{bundle.path / 'bundle.toml'}: weights.encoding: {bundle.encoding!r} is for images")
    return _filled(build_volume_network(bundle), bundle, weights).to(device)


def _filled(network: Network, bundle: Bundle, other: Path | None = None) -> Network:
    """Fill a network with the bundle's weights, which must still be those that were checked, or with other ones."""
    weights = other or bundle.weights_path
    try:
        own = None if other else read_pinned(weights, bundle.algorithm.weights_digest)
        state = load_file(weights) if own is None else load(own)
        if bundle.encoding == "int8":
            state = _dequantised(state)
        network.load_state_dict({name: tensor.to(network.state_dict()[name].dtype) for name, tensor in state.items()})
    except (SafetensorError, OSError, RuntimeError, KeyError) as error:
        raise BundleError(f"{weights}: does not fit the network of bundle.toml: {_first_said(error)}") from error
    return network.eval().requires_grad_(False)


def _first_said(error: Exception) -> str:
    """Return what an error says of the first tensor, and of how many; torch has a line for each, below a head."""
    first, *others = [line.strip() for line in str(error).strip().splitlines()] or [type(error).__name__]
    return f"{others[0]} ({len(others)} in all)" if others else first


def save_weights(network: nn.Module, file: Path) -> None:
    """Write the weights: convolutions and matrices as float16, what is small or a statistic as it is."""
    state = {
        name: tensor.detach().cpu().contiguous().to(torch.float16 if tensor.ndim > 1 else tensor.dtype)
        for name, tensor in network.state_dict().items()
    }
    file.write_bytes(save(state))


def save_quantised_weights(network: HybridMedNet, file: Path) -> None:
    """Write the weights of convolutions and linear layers as int8 with their scales, other numbers as float16."""
    matrices = {
        f"{name}.weight" for name, module in network.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)
    }
    state: dict[str, Tensor] = {}
    for name, tensor in network.state_dict().items():
        values = tensor.detach().cpu().contiguous()
        if name in matrices:
            state[name], state[name + _SCALE] = quantise(values)
        else:
            state[name] = values.half() if values.is_floating_point() else values
    file.write_bytes(save(state))


def quantise(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Round each output channel to 255 levels, evenly spaced around zero.

    Parameters
    ----------
    weight
        (O, ...) float32.

    Returns
    -------
    (O, ...) int8, and (O,) float32 scales; their product differs from `weight` by at most half a scale.
    """
    scale = weight.abs().flatten(1).amax(dim=1) / _LARGEST  # (O,)
    scale = scale.clamp_min(torch.finfo(scale.dtype).tiny)
    levels = (weight / _along(scale, weight)).round().clamp(-_LARGEST, _LARGEST)
    return levels.to(torch.int8), scale


def dequantise(levels: Tensor, scale: Tensor) -> Tensor:
    """Return the (O, ...) float32 weights of (O, ...) int8 levels and their (O,) scales."""
    return levels.float() * _along(scale, levels)


def _along(scale: Tensor, weight: Tensor) -> Tensor:
    return scale.view(-1, *[1] * (weight.ndim - 1))  # (O, 1, ...)


def _dequantised(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state with each pair of levels and scales as one matrix; KeyError where a scale is missing."""
    return {
        name: dequantise(tensor, state[name + _SCALE]) if tensor.dtype == torch.int8 else tensor
        for name, tensor in state.items()
        if not name.endswith(_SCALE)
    }
