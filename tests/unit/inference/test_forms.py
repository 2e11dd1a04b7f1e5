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
from tests.benchmarks import inference
from tests.benchmarks.inference.__main__ import arguments_of
from tests.benchmarks.inference.forms import FORMS
from tests.benchmarks.inference.one import Request, measure
from tests.benchmarks.inference.serving import at_once, open_bundle, ours, plain

_SIZE = 64
_SAMPLES = Path(__file__).parents[3] / "gateway" / "samples"


@pytest.mark.parametrize(
    ("form", "tolerance"), [("served", 1e-4), ("batched", 1e-4), ("onnx", 1e-4), ("half", 0.1), ("int8", 0.1)]
)
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


@pytest.mark.parametrize("form", ["onnx", "int8"])
def test_another_device_than_the_cpu_has_no_onnx_form(form: str) -> None:
    """ONNX Runtime is measured on the CPU alone."""
    config = HybridMedNetConfig(backbone="resnet10", width=8, channels=8, decoder_width=8)

    with pytest.raises(ValueError, match="for the CPU"):
        FORMS[form](HybridMedNet(config, 2, 3, 3), torch.device("cuda"), _SIZE)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (["--images", "48", "--batch", "64"], "--images 48 is no whole batch of 64: ask for that many or more"),
        (["--images", "1", "--batch", "1"], "--images 1: at least 2 are measured"),
        (["--batch", "0"], "--batch 0: at least one image is shown at once"),
        (["--forms", "plain,int4"], "--forms: int4 is none of plain, ours"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is(
    given: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a sentence, as any wrong option."""
    with pytest.raises(SystemExit) as end:
        arguments_of(given)

    assert end.value.code == 2
    assert reason in capsys.readouterr().err


def test_the_command_for_a_gpu_holds_whole_batches() -> None:
    """It is the one of the package's own words and of the model card."""
    card = (default_bundle_dir() / "cxr-pneumonia" / "README.md").read_text(encoding="utf-8")
    command = "--part both --device cuda --size 512 --images 256 --batch 64"

    asked = arguments_of(command.split())

    assert f"python -m tests.benchmarks.inference {command}" in " ".join(card.split())
    assert command in (inference.__doc__ or "")
    assert asked.images % asked.batch == 0


def test_what_serves_takes_a_large_batch_in_parts() -> None:
    """The table tells it of each way: as many as for a worker; the loop takes one."""
    assert [at_once("ours", batch) for batch in (8, 64)] == [8, Predictor.most_at_once]
    assert at_once("plain", 64) == 1


def test_memory_at_batch_1_is_told_apart_from_that_of_batches() -> None:
    """It is measured first, since a peak never comes down."""
    threads = torch.get_num_threads()
    asked = Request("network", "plain", "cxr-pneumonia", "", "", "cpu", _SIZE, batch=4, count=4, threads=threads)

    measured = measure(asked)

    assert (measured.part, measured.form, measured.at_once) == ("network", "plain", 1)
    assert 0 <= measured.single_mib <= measured.peak_mib
    assert measured.gap < 1e-5


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
