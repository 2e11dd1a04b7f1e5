"""Channels taken out of a network: what they did not say is not missed, and the result is a bundle of its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torchvision.models.resnet import BasicBlock

from inference.bundle import load_bundle
from inference.errors import BundleError
from inference.networks.config import HybridMedNetConfig
from inference.networks.hybridmednet import HybridMedNet
from inference.networks.weights import load_network
from inference.training.compression import compress
from inference.training.progress import Progress
from inference.training.pruning import Pruning, prune

_CONFIG = HybridMedNetConfig(backbone="resnet18", width=16, channels=8, decoder_width=8, scales=(1.0, 0.5))


def _network(config: HybridMedNetConfig) -> HybridMedNet:
    torch.manual_seed(0)
    return HybridMedNet(config, 2, 3, 3).eval().requires_grad_(False)


def _scores(network: HybridMedNet, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
    with torch.no_grad():
        said = network(image)
    return said.classes.coarse, said.classes.fine, said.segmentation


def test_channels_that_say_nothing_are_the_ones_that_go() -> None:
    """With half of each block's channels silent, the network of half as many says the same."""
    network, image = _network(_CONFIG), torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(1))
    for block in (module for module in network.modules() if isinstance(module, BasicBlock)):
        block.conv1.weight[1::2] = 0
        block.conv2.weight[:, 1::2] = 0
    before = _scores(network, image)

    inner = prune(network, 0.5, 64)

    assert inner == (8, 8, 16, 16, 32, 32, 64, 64)
    after = _scores(network.eval(), image)
    assert all(torch.allclose(one, other, atol=1e-5) for one, other in zip(before, after, strict=True))


def test_the_table_builds_the_pruned_network() -> None:
    """`[network].inner` gives a network into which the pruned weights fit and which says the same."""
    network, image = _network(_CONFIG), torch.rand(1, 1, 64, 64)
    whole = sum(parameter.numel() for parameter in network.backbone.parameters())
    inner = prune(network, 0.3, 64)

    built = HybridMedNet(HybridMedNetConfig.from_table({**_table(), "inner": list(inner)}), 2, 3, 3).eval()
    built.load_state_dict(network.state_dict())

    left = sum(parameter.numel() for parameter in built.backbone.parameters())
    assert 0.6 < left / whole < 0.8
    pairs = zip(_scores(network.eval(), image), _scores(built, image), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def _table() -> dict[str, object]:
    return {"backbone": "resnet18", "width": 16, "channels": 8, "decoder_width": 8, "scales": [1.0, 0.5]}


@pytest.mark.parametrize(
    "wrong", [{"inner": [8]}, {"inner": [8, 8, 16, 16, 32, 32, 64, 63]}, {"backbone": "resnet50", "inner": [8]}]
)
def test_other_widths_are_named(wrong: dict[str, object]) -> None:
    """The number of blocks and the step stand in the error."""
    with pytest.raises(ValueError, match=r"network\.inner"):
        HybridMedNetConfig.from_table({**_table(), **wrong})


def test_other_trunks_are_refused() -> None:
    """Only blocks of two convolutions are pruned."""
    config = HybridMedNetConfig(backbone="resnet50", width=8, channels=8, decoder_width=8)

    with pytest.raises(BundleError, match="only resnet10, resnet18, resnet34"):
        prune(_network(config), 0.3, 64)


def test_a_pruned_bundle_is_kept_where_it_answers_as_well(
    trained: tuple[Path, list[Progress]], chests: Path, tmp_path: Path
) -> None:
    """It has fewer parameters, its own digest, self-test and calibration, and its method in its table."""
    made = compress(trained[0], chests, tmp_path, Pruning(ratio=0.5, epochs=3), device="cpu", report=lambda _: None)

    bundle, original = load_bundle(made.made.folder), load_bundle(trained[0])
    assert (bundle.name, bundle.network["inner"]) == ("cxr-pneumonia-pruned", [8, 8, 16, 32])
    assert made.made.parameters < 0.8 * made.original.parameters
    assert bundle.algorithm.weights_digest != original.algorithm.weights_digest
    assert bundle.self_test is not None and bundle.novelty is not None
    assert "50% of the channels" in (made.made.folder / "bundle.toml").read_text()
    load_network(bundle, torch.device("cpu"))
    assert sorted(path.name for path in tmp_path.iterdir()) == [made.made.folder.name]


def test_a_share_out_of_range_is_refused(trained: tuple[Path, list[Progress]], chests: Path, tmp_path: Path) -> None:
    """The bounds stand in the error, and nothing is left behind."""
    with pytest.raises(BundleError, match=r"must lie within 0\.05 and 0\.9, not 1"):
        compress(trained[0], chests, tmp_path / "new", Pruning(ratio=1), device="cpu", report=lambda _: None)
    assert not (tmp_path / "new").exists()


def test_a_bundle_with_another_trunk_is_refused_before_anything_is_begun(tiny_bundle: Path) -> None:
    """The error names the trunks that can be pruned, and the way that takes any."""
    bundle = load_bundle(tiny_bundle, verify_weights=False)
    other = replace(bundle, network={**bundle.network, "backbone": "efficientnet_b0"})

    with pytest.raises(BundleError, match=r"only resnet10, resnet18, resnet34 have blocks .* distilled"):
        Pruning().check(other)
