"""The forms that the inference benchmark compares say the same: a speed without the same answer is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from inference.bundle import default_bundle_dir
from inference.networks.config import HybridMedNetConfig
from inference.networks.hybridmednet import HybridMedNet
from inference.predict import Predictor, PreparedImage
from tests.benchmarks.inference.forms import FORMS
from tests.benchmarks.inference.serving import open_bundle, ours, plain

_SIZE = 64
_SAMPLES = Path(__file__).parents[3] / "gateway" / "samples"


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


def test_what_serves_says_what_the_plain_loop_says() -> None:
    """On real X-rays: probabilities, pixels and heat maps, whether images come alone or together."""
    bundle = open_bundle("cxr-pneumonia")
    served = ours(bundle, torch.device("cpu"))
    prepared = Predictor(bundle, "cpu").prepare([[sample] for sample in sorted(_SAMPLES.glob("*.dcm"))])
    images = [item for item in prepared.items if isinstance(item, PreparedImage)]

    expected = plain(bundle, torch.device("cpu"))(images)

    assert len(images) == 3
    for said in (served(images), [one for image in images for one in served([image])]):
        for one, other in zip(said, expected, strict=True):
            assert one is not None
            assert other is not None
            assert np.abs(one.probabilities - other.probabilities).max() < 1e-4
            assert (one.lungs != other.lungs).mean() < 1e-4
            assert np.abs(one.heat_map - other.heat_map).max() < 1e-2


def test_a_bundle_for_larger_images_is_the_same_network() -> None:
    """A size changes what is shown, and leaves out what would judge the answers."""
    shipped = open_bundle(str(default_bundle_dir() / "cxr-pneumonia"))
    larger = open_bundle("cxr-pneumonia", 512)

    assert (larger.projection.size, larger.projection.detail, larger.self_test) == (512, 1024, None)
    assert (larger.network, larger.weights_path) == (shipped.network, shipped.weights_path)
    assert shipped.self_test is not None
