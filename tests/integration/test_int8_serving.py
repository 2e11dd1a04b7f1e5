"""The shipped X-ray model in int8, calibrated on the samples: the gateway's predictor serves it as any other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from inference.bundle import Bundle, default_bundle_dir, load_bundle
from inference.findings import Findings
from inference.networks.graph_network import ENCODING, GraphNetwork, save_graph_network
from inference.networks.weights import load_network
from inference.predict import Predictor, PreparedImage
from inference.training.data import Images
from inference.training.making import Work
from inference.training.quantisation import quantised, shown_views

_SAMPLES = sorted((Path(__file__).parents[2] / "gateway" / "samples").glob("*.dcm"))


@pytest.fixture(scope="module")
def original() -> Predictor:
    """Give the shipped model."""
    return Predictor(load_bundle(default_bundle_dir() / "cxr-pneumonia"), "cpu")


@pytest.fixture(scope="module")
def int8(original: Predictor, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Give it with convolutions in int8."""
    folder, bundle = tmp_path_factory.mktemp("bundles") / "made", original.bundle
    folder.mkdir()
    prepared = original.prepare([[path] for path in _SAMPLES])
    network = load_network(bundle, torch.device("cpu"))
    images = _images([item for item in prepared.items if isinstance(item, PreparedImage)])
    views = shown_views(network, images, bundle, len(images), 1)
    graphs = quantised(network, views, bundle.projection.size, tmp_path_factory.mktemp("scratch"))
    work = Work(bundle, folder, folder, "cpu", lambda _: None)
    work.weights.write_bytes(save_graph_network(network, *graphs))
    work.describe(ENCODING)
    return load_bundle(folder, allowance=work.allowance)


def _images(items: list[PreparedImage]) -> Images:
    count = len(items)
    grey = np.stack([np.round(255 * item.grey) for item in items]).astype(np.uint8)
    nothing = np.zeros(count, dtype=np.int64)
    return Images(
        names=("",) * count,
        groups=("",) * count,
        grey=grey,
        lungs=np.zeros_like(grey),
        has_mask=np.zeros(count, dtype=np.bool_),
        aspects=np.array([item.aspect for item in items]),
        has_aspect=np.ones(count, dtype=np.bool_),
        coarse=nothing,
        fine=nothing,
    )


def test_each_sample_is_seen_in_both_looks(original: Predictor) -> None:
    """The ranges are found on what serving shows: the whole plane, then the lungs, of the network's size."""
    prepared = original.prepare([[path] for path in _SAMPLES])
    images = _images([item for item in prepared.items if isinstance(item, PreparedImage)])
    network = load_network(original.bundle, torch.device("cpu"))

    views = shown_views(network, images, original.bundle, 2, 1)

    assert views.shape == (4, 1, original.spec.size, original.spec.size)
    assert not torch.equal(views[0], views[1])


def test_the_samples_get_all_that_the_original_gives(original: Predictor, int8: Bundle) -> None:
    """Classes and outlines agree with the original's, and a heat map is there that looks at the same places."""
    predictor = Predictor(int8, "cpu")
    assert isinstance(predictor.network, GraphNetwork)
    series = [[path] for path in _SAMPLES]

    said, expected = predictor.run(predictor.prepare(series)), original.run(original.prepare(series))

    for one, other in zip(said, expected, strict=True):
        assert isinstance(one, Findings) and isinstance(other, Findings)
        assert [each.answer.code for each in one.findings] == [each.answer.code for each in other.findings]
        for segment, its_original in zip(one.segments, other.segments, strict=True):
            common = (segment.mask & its_original.mask).sum()
            assert 2 * common / (segment.mask.sum() + its_original.mask.sum()) > 0.95
        (heat_map,), (other_map,) = one.heat_maps, other.heat_maps
        assert np.corrcoef(heat_map.weight.ravel(), other_map.weight.ravel())[0, 1] > 0.7
