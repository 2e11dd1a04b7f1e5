"""What a network says of a made-up input, as it said when it was made: shown at every load.

The digest tells that the weights are the ones declared; this tells that weights, code and libraries together still give
the answers that were evaluated. The input is a sum of waves, the same to the last bits everywhere; of the scores some
dozen numbers at fixed places are compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import torch
from torch import Tensor

from inference.bundle import BUNDLE_FILE, Bundle
from inference.device import using_device
from inference.errors import BundleError
from inference.foreign.network import ForeignNetwork
from inference.input_spec import ProjectionInput
from inference.networks.hybridmednet import HybridMedNet
from inference.networks.hybridmednet3d import HybridMedNet3d

Network: TypeAlias = HybridMedNet | HybridMedNet3d | ForeignNetwork

_PROBES = 12
_RELATIVE_TOLERANCE = 0.02
"""Of the largest expected number; devices and thread counts differ by far less."""
_DIGITS = 5
_SIDE = 32
"""Of a made-up volume, as near as the network's strides and the patch allow."""


def answer(bundle: Bundle, network: Network) -> list[float]:
    """Return what the network says of the made-up input."""
    device = next(network.parameters()).device
    with torch.inference_mode():
        shown = _made_up(bundle, network).to(device)
        if isinstance(network, ForeignNetwork):
            return [value for scores in network.scores(shown).values() for value in _probe(scores)]
        said = network(shown)
    if isinstance(said, Tensor):
        return _probe(said)
    return [*_probe(said.classes.coarse), *_probe(said.classes.fine), *_probe(said.segmentation)]


def self_test_table(bundle: Bundle, network: Network) -> Mapping[str, object]:
    """Return the `[self_test]` table of a bundle whose network this is."""
    expected = [round(value, _DIGITS) for value in answer(bundle, network)]
    tolerance = _RELATIVE_TOLERANCE * max(1.0, *(abs(value) for value in expected))
    return {"expected": expected, "tolerance": round(tolerance, _DIGITS)}


def check_network(bundle: Bundle, network: Network) -> None:
    """Raise BundleError where the network does not answer as `[self_test]` says, DeviceError where its device fails."""
    try:
        with using_device(next(network.parameters()).device):
            said = answer(bundle, network)
    except (BundleError, RuntimeError, ValueError) as error:
        reason = str(error).strip().rpartition("\n")[2]
        raise BundleError(f"{bundle.weights_path}: cannot evaluate a made-up input: {reason}") from error
    if bundle.self_test is None:
        return
    expected = bundle.self_test.expected
    place = f"{bundle.path / BUNDLE_FILE}: self_test.expected"
    if len(said) != len(expected):
        raise BundleError(f"{place}: holds {len(expected)} numbers, the network gives {len(said)}")
    gap = max(abs(one - other) for one, other in zip(said, expected, strict=True))
    if not gap <= bundle.self_test.tolerance:
        allowed = bundle.self_test.tolerance
        raise BundleError(f"{place}: the network's answer is {gap:.3g} off, at most {allowed:.3g} is allowed")


def _made_up(bundle: Bundle, network: Network) -> Tensor:
    """Return the input: (1, 1, Y, X) in 0..1, or (1, 1, Z, Y, X) in -1..1."""
    if isinstance(bundle.input, ProjectionInput):
        return (_waves((bundle.projection.size, bundle.projection.size)) + 1) / 2
    if not isinstance(network, HybridMedNet3d):
        return _waves(bundle.volume.patch)
    sides = zip(bundle.volume.patch, network.divisor, strict=True)
    return _waves(tuple(min(side, max(divisor, _SIDE // divisor * divisor)) for side, divisor in sides))


def _waves(shape: tuple[int, ...]) -> Tensor:
    total = torch.zeros(shape, dtype=torch.float64)
    for axis, side in enumerate(shape):
        phase = torch.linspace(0, 2 * torch.pi, side, dtype=torch.float64) * (axis + 1)
        total = total + torch.sin(phase).view(-1, *[1] * (len(shape) - 1 - axis))
    return (total / len(shape)).float()[None, None]


def _probe(scores: Tensor) -> list[float]:
    flat = scores.flatten().double().cpu()
    places = torch.linspace(0, len(flat) - 1, min(_PROBES, len(flat)), dtype=torch.float64).long()
    return [float(value) for value in flat[places]]
