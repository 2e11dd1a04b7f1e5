"""Networks for volumes: shapes, mathematics, and every combination that the table allows takes a step."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from inference.networks.config3d import HybridMedNet3dConfig
from inference.networks.decoder3d import SegmentationDecoder3d
from inference.networks.encoder3d import ResidualBlock3d, ResidualEncoder3d
from inference.networks.hybrid_convolution import CONVOLUTIONS, HybridConvolution, full_convolution
from inference.networks.hybridmednet3d import HybridMedNet3d

_STRIDES = ((1, 2, 2), (2, 2, 2))


def test_a_hybrid_convolution_without_its_gate_treats_every_plane_alone() -> None:
    """At gate 0 a change of one plane leaves the others' result as it was; at gate 1 it reaches both neighbours."""
    block = HybridConvolution(1, 16)
    volume = torch.randn(1, 1, 7, 8, 8)
    changed = volume.clone()
    changed[:, :, 3] += 1

    with torch.no_grad():
        together = (block(changed) - block(volume)).abs().amax(dim=(0, 1, 3, 4))
        block.gate.zero_()
        alone = (block(changed) - block(volume)).abs().amax(dim=(0, 1, 3, 4))

    assert (together > 1e-6).tolist() == [False, False, True, True, True, False, False]
    assert (alone > 1e-6).tolist() == [False, False, False, True, False, False, False]


def test_a_hybrid_convolution_is_the_sum_of_its_branches() -> None:
    """By hand: within the planes, then across them, each plane of the result belonging to one of the input."""
    block = HybridConvolution(2, 16)
    volume = torch.randn(1, 2, 5, 6, 7)

    with torch.no_grad():
        within = nn.functional.conv3d(volume, block.in_plane.weight, padding=(0, 1, 1))
        across = nn.functional.conv3d(within, block.through_plane.weight, padding=(1, 0, 0))
        found = block(volume)

    assert found.shape == (1, 16, 5, 6, 7)
    assert torch.allclose(found, within + across, atol=1e-5)


def test_a_residual_block_passes_its_input_on() -> None:
    """With its second norm at zero, a block of equal width gives its activated input back."""
    block = ResidualBlock3d(16, 16, full_convolution)
    nn.init.zeros_(block.second_norm.weight)
    features = torch.rand(1, 16, 4, 4, 4)

    with torch.no_grad():
        found = block(features)

    assert torch.allclose(found, features)


def test_the_encoder_halves_and_the_decoder_doubles_by_the_strides() -> None:
    """Grids follow the strides down, and scores come back on the grid of the input."""
    encoder = ResidualEncoder3d((16, 24, 32), _STRIDES, full_convolution)
    decoder = SegmentationDecoder3d((16, 24, 32), _STRIDES, 3, full_convolution)

    with torch.no_grad():
        levels = encoder(torch.randn(2, 1, 4, 16, 12))
        scores = decoder(levels)

    assert [tuple(level.shape[1:]) for level in levels] == [(16, 4, 16, 12), (24, 4, 8, 6), (32, 2, 4, 3)]
    assert scores.shape == (2, 3, 4, 16, 12)


def test_scores_lie_in_the_voxel_of_the_stem_that_they_are_of() -> None:
    """What the classifier says of the stem's k-th voxel comes out at that voxel, as the stem took it in."""
    decoder = SegmentationDecoder3d((16,), (), 2, full_convolution, stem=(1, 2, 2))
    scores = torch.arange(8.0).view(1, 8, 1, 1, 1).expand(1, 8, 2, 1, 1)  # (B, classes * voxels, Z, Y, X)

    woven = decoder._to_voxels(scores)

    assert woven.shape == (1, 2, 2, 2, 2)
    assert woven[0, 0, 0].tolist() == [[0.0, 1.0], [2.0, 3.0]]
    assert woven[0, 1, 1].tolist() == [[4.0, 5.0], [6.0, 7.0]]


@pytest.mark.parametrize(
    ("convolution", "depth", "stem"), [*itertools.product(CONVOLUTIONS, (1, 2, 3), ([1, 1, 1], [1, 2, 2]))]
)
def test_every_combination_takes_a_step_that_lowers_the_loss(convolution: str, depth: int, stem: list[int]) -> None:
    """One step of gradient descent on one made-up volume; every parameter gets a gradient."""
    torch.manual_seed(0)
    table = {"kind": "hybridmednet3d", "widths": [8, 16, 24][:depth], "convolution": convolution, "stem": stem}
    config = HybridMedNet3dConfig.from_table({**table, "strides": [list(one) for one in _STRIDES[: depth - 1]]})
    network = HybridMedNet3d(config, classes=2)
    volume, truth = torch.randn(1, 1, 4, 16, 16), torch.randint(0, 2, (1, 4, 16, 16))

    before = nn.functional.cross_entropy(network(volume), truth)
    before.backward()
    torch.optim.SGD(network.parameters(), lr=0.02).step()
    after = nn.functional.cross_entropy(network(volume), truth)

    assert after < before
    assert all(parameter.grad is not None for parameter in network.parameters())
    strided = ((1, 1, 1), (1, 2, 2), (2, 4, 4))[depth - 1]
    assert config.divisor == tuple(one * other for one, other in zip(strided, stem, strict=True))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("widths", [12, 16]),
        ("widths", []),
        ("strides", [[2, 2, 2], [2, 2, 2]]),
        ("strides", [[3, 2, 2]]),
        ("stem", [1, 4, 4]),
        ("convolution", "dense"),
        ("depth", 3),
    ],
)
def test_a_table_that_does_not_fit_names_its_field(field: str, value: object) -> None:
    """The error names the field of the `[network]` table."""
    table = {"widths": [16, 32], "strides": [[2, 2, 2]], field: value}

    with pytest.raises(ValueError, match=f"network.{field}"):
        HybridMedNet3dConfig.from_table(table)
