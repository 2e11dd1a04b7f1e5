"""Grad-CAM finds what the heads looked at."""

import torch

from inference.networks.config import HybridMedNetConfig
from inference.networks.hybridmednet import HybridMedNet
from inference.saliency import grad_cam

_PARENTS = (0, 1, 1)


def _network() -> HybridMedNet:
    """Build a network whose class 1 depends on channel 0 of every level, and on nothing else."""
    config = HybridMedNetConfig(backbone="resnet10", width=8, channels=8, decoder_width=8)
    network = HybridMedNet(config, 2, 3, 3).eval().requires_grad_(False)
    network.heads.coarse.weight.zero_()
    network.heads.coarse.weight[1, ::8] = 1.0
    return network


def _levels(channel: int) -> list[torch.Tensor]:
    """Levels of a 64 x 64 image, set in the lower right quarter of one channel."""
    levels = [torch.zeros(1, 8, side, side) for side in (16, 8, 4, 2)]
    for level in levels:
        half = level.shape[-1] // 2
        level[:, channel, half:, half:] = 1
    return levels


def test_the_map_lights_up_where_the_class_comes_from() -> None:
    """The quarter that drives the class is bright, the opposite one dark."""
    cam = grad_cam(_network(), _levels(channel=0), _PARENTS, 1, 64)[0]

    assert cam.shape == (64, 64)
    assert cam.max() == 1
    assert cam[48:, 48:].mean() > 0.8
    assert cam[:16, :16].max() < 0.05


def test_what_does_not_matter_stays_dark() -> None:
    """A channel without influence on the class leaves the map empty."""
    cam = grad_cam(_network(), _levels(channel=3), _PARENTS, 1, 64)

    assert cam.max() == 0


def test_evidence_against_the_class_stays_dark() -> None:
    """What speaks for class 1 speaks against class 0."""
    cam = grad_cam(_network(), _levels(channel=0), _PARENTS, 0, 64)

    assert cam.max() == 0
