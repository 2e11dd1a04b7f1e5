"""Images in batches: the same answers as one by one, refusals of their own, halves where the device is full."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional

from inference.bundle import default_bundle_dir, load_bundle
from inference.device import using_device
from inference.errors import DeviceError, DeviceFullError
from inference.findings import Findings, NotEvaluable, Outcome
from inference.networks.config import HybridMedNetConfig
from inference.networks.hybridmednet import HybridMedNet
from inference.networks.serving import as_served
from inference.predict import Predictor, PreparedImage
from inference.series_predictor import Prepared
from inference.transforms import Region, restore
from inference.views import segmented

_SAMPLES = sorted((Path(__file__).parents[3] / "gateway" / "samples").glob("*.dcm"))
_REPORTED = 1e-4
"""Probabilities are reported to hundredths of a percent at the most."""


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    """Give the shipped model on the CPU."""
    return Predictor(load_bundle(default_bundle_dir() / "cxr-pneumonia"), "cpu")


@pytest.fixture(scope="module")
def jobs(predictor: Predictor) -> list[Prepared[PreparedImage]]:
    """Give three jobs of one image each."""
    return [predictor.prepare([[sample]]) for sample in _SAMPLES]


@pytest.fixture(scope="module")
def alone(predictor: Predictor, jobs: Sequence[Prepared[PreparedImage]]) -> list[Findings]:
    """Give what the model says of each by itself."""
    return [_findings(outcome) for job in jobs for outcome in predictor.run(job)]


def _findings(outcome: Outcome) -> Findings:
    assert isinstance(outcome, Findings)
    return outcome


def _noise(job: Prepared[PreparedImage]) -> PreparedImage:
    (image,) = job.items
    assert isinstance(image, PreparedImage)
    grey = np.random.default_rng(0).random(image.grey.shape, dtype=np.float32)
    return replace(image, series_instance_uid="2.25.1", grey=grey)


def _assert_same(said: Findings, expected: Findings) -> None:
    """Compare findings, probabilities and areas to the digits reported, pixels but for ties, and maps."""
    for one, other in zip(said.findings, expected.findings, strict=True):
        assert (one.answer.name, one.label_set) == (other.answer.name, other.label_set)
        for ours, theirs in zip(one.alternatives, other.alternatives, strict=True):
            assert ours.probability == pytest.approx(theirs.probability, abs=_REPORTED)
    for ours, theirs in zip(said.segments, expected.segments, strict=True):
        assert ours.tracking_id == theirs.tracking_id
        assert (ours.mask != theirs.mask).mean() < 1e-5
        for area, expected_area in zip(ours.measurements, theirs.measurements, strict=True):
            assert area.value == pytest.approx(expected_area.value, rel=1e-4)
    for map_, expected_map in zip(said.heat_maps, expected.heat_maps, strict=True):
        assert np.abs(map_.weight - expected_map.weight).max() < 1e-3


def test_a_study_says_the_same_alone_and_among_others(
    predictor: Predictor, jobs: Sequence[Prepared[PreparedImage]], alone: Sequence[Findings]
) -> None:
    """Whatever batch an image is in, and at whatever place, what is reported of it is the same."""
    orders = ([0, 1, 2], [2, 0, 1], [1, 1, 1, 0, 2, 2, 0])

    for order in orders:
        said = predictor.run_many([jobs[each] for each in order])

        for (outcome,), each in zip(said, order, strict=True):
            _assert_same(_findings(outcome), alone[each])


def test_a_refused_image_changes_nothing_for_its_neighbours(
    predictor: Predictor, jobs: Sequence[Prepared[PreparedImage]], alone: Sequence[Findings]
) -> None:
    """Each image of a job has its outcome, in order; what was refused before is among them."""
    known = NotEvaluable(predictor.bundle.algorithm, "modality", "Modality is MR, expected DX.", "2.25.2")
    job = Prepared((_noise(jobs[0]), known, *jobs[0].items, *jobs[1].items))

    (said,) = predictor.run_many([job])

    assert isinstance(said[0], NotEvaluable)
    assert (said[0].code.split(".")[0], said[0].series_instance_uid) == ("lungs", "2.25.1")
    assert said[1] is known
    for place, expected in ((2, alone[0]), (3, alone[1])):
        outcome = _findings(said[place])
        assert {finding.tracking_id for finding in outcome.findings} <= {f"coarse.{place + 1}", f"fine.{place + 1}"}
        assert outcome.findings[0].answer.probability == pytest.approx(
            expected.findings[0].answer.probability, abs=_REPORTED
        )


def test_nothing_to_evaluate_asks_no_network(predictor: Predictor) -> None:
    """A job of refusals, and no job at all."""
    known = NotEvaluable(predictor.bundle.algorithm, "modality", "Modality is MR, expected DX.", "2.25.2")

    assert predictor.run_many([Prepared((known,)), Prepared(())]) == [(known,), ()]
    assert predictor.run_many([]) == []


@pytest.mark.parametrize("fits", [1, 2, 3])
def test_a_device_that_is_too_full_gets_halves(
    monkeypatch: pytest.MonkeyPatch,
    predictor: Predictor,
    jobs: Sequence[Prepared[PreparedImage]],
    alone: Sequence[Findings],
    fits: int,
) -> None:
    """The answers are those of any batch, in order."""
    features, sizes = predictor.network.features, []

    def tight(images: Tensor) -> list[Tensor]:
        if len(images) > fits:
            raise torch.OutOfMemoryError
        sizes.append(len(images))
        return features(images)

    monkeypatch.setattr(predictor.network, "features", tight)
    order = [0, 1, 2, 0, 1]
    said = predictor.run_many([jobs[each] for each in order])

    assert 1 <= max(sizes) <= fits
    for (outcome,), each in zip(said, order, strict=True):
        _assert_same(_findings(outcome), alone[each])


def test_a_host_without_memory_is_a_full_device() -> None:
    """The class of the error is a plain RuntimeError; others of that class pass as they are."""
    with pytest.raises(DeviceFullError) as full, using_device(torch.device("cpu")):
        torch.empty(1 << 46, dtype=torch.uint8)
    with pytest.raises(RuntimeError) as other, using_device(torch.device("cpu")):
        torch.zeros(2) @ torch.zeros(3)

    assert full.value.may_pass
    assert not isinstance(other.value, DeviceError)


@pytest.mark.parametrize("said", ["could not create a primitive", "could not create a memory object", "std::bad_alloc"])
def test_what_onednn_says_without_memory_is_known(said: str) -> None:
    """Its convolutions end so where the code or the buffers that they make find no place; another try may succeed."""
    with pytest.raises(DeviceFullError), using_device(torch.device("cpu")):
        raise RuntimeError(said)


@pytest.mark.parametrize("backbone", ["resnet10", "resnet50", "efficientnet_b0", "hrnet", "swin_t"])
def test_a_network_as_served_says_what_it_said(backbone: str) -> None:
    """Norms with statistics of their own are folded away, and the answers stay."""
    torch.manual_seed(0)
    width = 32 if backbone.startswith("swin") else 16
    network = HybridMedNet(HybridMedNetConfig(backbone=backbone, width=width, channels=16, decoder_width=16), 2, 3, 3)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)  # type: ignore[arg-type]  # it tracks them
            nn.init.uniform_(module.running_var, 0.5, 2)  # type: ignore[arg-type]  # it tracks them
            nn.init.uniform_(module.weight, 0.5, 1.5)
    network.eval().requires_grad_(False)
    images = torch.rand(2, 1, 64, 64)
    norms = sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())

    with torch.no_grad():
        expected = network(images)
        said = as_served(network)(images)

    left = sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    assert left < norms or norms == 0
    for one, other in ((said.classes.fine, expected.classes.fine), (said.segmentation, expected.segmentation)):
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-3 * float(other.abs().max()))


_REGIONS = (Region(0.1, -0.2, 0.6, 0.5), Region(0, 0, 1.0, 1.6), Region(0.7, 0.8, 0.5, 0.5), Region(3.0, 0, 0.5, 0.5))


def _by_torch(result: Tensor, region: Region, shape: tuple[int, int], fill: float) -> Tensor:
    """Restore by a full grid: what `restore` did before it used that its axes are apart."""
    theta = torch.from_numpy(region.inverse_theta())[None]
    grid = functional.affine_grid(theta, [1, len(result), *shape], align_corners=False)
    back = functional.grid_sample(result[None], grid, mode="bilinear", padding_mode="border", align_corners=False)[0]
    return back.masked_fill((grid[0].abs() > 1).any(dim=2), fill)


@pytest.mark.parametrize("region", _REGIONS)
@pytest.mark.parametrize("shape", [(101, 83), (64, 200)])
def test_a_result_is_restored_as_by_torchs_own_grid(region: Region, shape: tuple[int, int]) -> None:
    """Inside, at the borders and wholly outside of the plane."""
    result = torch.rand(3, 40, 40, generator=torch.Generator().manual_seed(1))

    said = restore(result, region, shape, fill=-7)

    expected = _by_torch(result, region, shape, -7)
    assert ((said == -7) != (expected == -7)).sum() <= 3 * max(shape)  # a border may fall on a pixel's centre
    both = (said != -7) & (expected != -7)
    assert torch.allclose(said[both], expected[both], atol=1e-4)


def _largest_parts(classes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    kept = np.zeros_like(classes)
    for number in range(1, int(classes.max()) + 1):
        parts, count = ndimage.label(classes == number)
        if count:
            kept[parts == 1 + np.bincount(parts.ravel())[1:].argmax()] = number
    return kept


def test_segments_are_the_largest_parts_of_the_most_probable_classes() -> None:
    """As by argmax and components over the whole plane, with small parts beside large ones."""
    noise = np.random.default_rng(3).random((3, 60, 60))
    scores = torch.from_numpy(np.stack([ndimage.gaussian_filter(each, 3) for each in noise]) * 60).float()
    probabilities, region, shape = torch.softmax(scores, dim=0), Region(0.05, 0.0, 0.9, 0.8), (130, 110)
    classes = _by_torch(probabilities, region, shape, 0.0).argmax(dim=0).to(torch.uint8).numpy()

    said = segmented(probabilities, region, shape)

    expected = _largest_parts(classes)
    assert (expected > 0).mean() > 0.1
    assert (classes != expected).any()
    assert (said != expected).mean() < 0.002
