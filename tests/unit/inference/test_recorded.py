"""Maps that are recorded once: batches of any size, nothing left of former images, a wrong recording refused.

Where there is no GPU, what stands for a CUDA graph computes anew; the last test needs one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from inference.bundle import default_bundle_dir, load_bundle
from inference.errors import DeviceError
from inference.findings import Findings
from inference.networks.hybridmednet import HybridMedNet
from inference.networks.recorded import SIZES, Recorded, RecordedNetwork, Recording, Run
from inference.networks.serving import as_served
from inference.networks.weights import load_network
from inference.predict import Predictor
from inference.self_test import check_network

_SAMPLES = sorted((Path(__file__).parents[3] / "gateway" / "samples").glob("*.dcm"))
_SIDE = 64
_HALF = 0.01
"""Between probabilities in float16 and in float32."""


def _computed(run: Run, inputs: list[Tensor]) -> Recording:
    """Stand for a CUDA graph: fixed buffers, computed anew each time."""
    outputs = run(inputs)

    def again() -> None:
        for buffer, value in zip(outputs, run(inputs), strict=True):
            buffer.copy_(value)

    return Recording(inputs, outputs, again)


def _stuck(run: Run, inputs: list[Tensor]) -> Recording:
    return Recording(inputs, [output + 1 for output in run(inputs)], lambda: None)


@pytest.fixture(scope="module")
def network() -> HybridMedNet:
    """Give the shipped network as it serves."""
    return as_served(load_network(load_bundle(default_bundle_dir() / "cxr-pneumonia"), torch.device("cpu")))


@pytest.mark.parametrize("count", [1, 3, SIZES[-1]])
def test_batches_of_any_size_have_the_answers_of_the_network(network: HybridMedNet, count: int) -> None:
    """Whatever they are filled up to."""
    images = torch.rand(count, 1, _SIDE, _SIDE, generator=torch.Generator().manual_seed(count))
    recorded = RecordedNetwork(network, torch.float32, _computed)

    with torch.inference_mode():
        said, expected = recorded(images), network(images)

    assert said.segmentation.shape == expected.segmentation.shape
    assert torch.allclose(said.segmentation, expected.segmentation, atol=1e-4)
    assert torch.allclose(said.classes.coarse, expected.classes.coarse, atol=1e-4)
    assert torch.allclose(said.classes.fine, expected.classes.fine, atol=1e-4)


def test_nothing_is_left_of_former_images() -> None:
    """What was given out stays as it was, and the place of an image that is not there is empty."""
    shown: list[Tensor] = []

    def doubled(given: Sequence[Tensor]) -> list[Tensor]:
        shown.append(given[0].clone())
        return [2 * given[0]]

    run = Recorded(doubled, _computed)
    (first,) = run([torch.full((4, 1, 2, 2), 1.0)])
    (second,) = run([torch.full((3, 1, 2, 2), 5.0)])

    assert (first == 2).all()
    assert second.shape == (3, 1, 2, 2)
    assert (second == 10).all()
    assert (shown[-1][3:] == 0).all()
    with pytest.raises(ValueError, match="17 images at once, at most 16"):
        run([torch.zeros(17, 1, 2, 2)])


def test_a_recording_that_says_something_else_is_refused() -> None:
    """It is compared with what it was taken of before anybody sees its answer, each time that it is taken."""
    run = Recorded(lambda given: [given[0] * 2], _stuck)
    for _ in range(2):
        with pytest.raises(DeviceError, match="off what it was taken of"):
            run([torch.ones(1, 1, 2, 2)])


def test_gradients_by_the_image_are_those_of_the_network(network: HybridMedNet) -> None:
    """Attributions ask for them."""
    image = torch.rand(1, 1, _SIDE, _SIDE, requires_grad=True)

    levels = RecordedNetwork(network, torch.float32, _computed).features(image)
    levels[-1].sum().backward()

    assert image.grad is not None
    assert image.grad.abs().sum() > 0


def test_the_shipped_bundle_bears_maps_in_half_the_bits() -> None:
    """Self-test, guards and answers hold in float16, which a CPU computes too."""
    predictor = Predictor(load_bundle(default_bundle_dir() / "cxr-pneumonia"), "cpu")
    prepared = [predictor.prepare([[sample]]) for sample in _SAMPLES]
    expected = predictor.run_many(prepared)

    predictor.network = RecordedNetwork(predictor.network, torch.float16, _computed)
    check_network(predictor.bundle, predictor.network)

    _compare(predictor.run_many(prepared), expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_answers_as_the_cpu_does() -> None:
    """With CUDA graphs, in float16."""
    bundle = load_bundle(default_bundle_dir() / "cxr-pneumonia")
    plain, recorded = Predictor(bundle, "cpu"), Predictor(bundle, "cuda", is_recorded=True)
    prepared = [plain.prepare([[sample]]) for sample in _SAMPLES]
    expected = plain.run_many(prepared)

    assert isinstance(recorded.network, RecordedNetwork)
    for _ in range(2):  # recorded, repeated
        _compare(recorded.run_many(prepared), expected)
        _compare(recorded.run_many(prepared[:1]), expected[:1])


def _compare(said: Sequence[Sequence[object]], expected: Sequence[Sequence[object]]) -> None:
    for (one,), (other,) in zip(said, expected, strict=True):
        assert isinstance(one, Findings)
        assert isinstance(other, Findings)
        for finding, like in zip(one.findings, other.findings, strict=True):
            probabilities, others = ([each.probability for each in given.alternatives] for given in (finding, like))
            assert probabilities == pytest.approx(others, abs=_HALF)
        for segment, same in zip(one.segments, other.segments, strict=True):
            assert np.mean(segment.mask != same.mask) < _HALF
