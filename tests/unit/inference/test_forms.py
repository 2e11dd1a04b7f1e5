"""The forms that the inference benchmark compares say the same: a speed without the same answer is none."""

from __future__ import annotations

import pytest
import torch

from inference.networks.config import HybridMedNetConfig
from inference.networks.hybridmednet import HybridMedNet
from tests.benchmarks.inference.forms import FORMS

_SIZE = 64


@pytest.mark.parametrize(("form", "tolerance"), [("batched", 1e-4), ("onnx", 1e-4), ("half", 0.1)])
@pytest.mark.parametrize("images", [1, 3])
def test_a_form_says_what_the_plain_loop_says(form: str, tolerance: float, images: int) -> None:
    """Classes and segmentation agree for one image and for several, the image pyramid included."""
    torch.manual_seed(0)
    config = HybridMedNetConfig(backbone="resnet10", width=16, channels=16, decoder_width=16)
    network, device = HybridMedNet(config, 2, 3, 3).eval().requires_grad_(False), torch.device("cpu")
    shown = torch.rand(images, 1, _SIZE, _SIZE)

    expected = FORMS["plain"](network, device, _SIZE)(shown)
    said = FORMS[form](network, device, _SIZE)(shown)

    for one, other in zip(said, expected, strict=True):
        assert one.shape == other.shape
        assert float((torch.softmax(one, 1) - torch.softmax(other, 1)).abs().max()) < tolerance


def test_another_device_than_the_cpu_has_no_onnx_form() -> None:
    """ONNX Runtime is measured on the CPU alone."""
    config = HybridMedNetConfig(backbone="resnet10", width=8, channels=8, decoder_width=8)

    with pytest.raises(ValueError, match="for the CPU"):
        FORMS["onnx"](HybridMedNet(config, 2, 3, 3), torch.device("cuda"), _SIZE)
