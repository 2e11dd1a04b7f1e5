"""The student's table: how narrow it gets, what may be given; and what a student has of its teacher at first."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from inference.bundle import Bundle, load_bundle
from inference.errors import BundleError
from inference.networks.config import HybridMedNetConfig
from inference.networks.hybridmednet import HybridMedNet
from inference.networks.weights import build_network
from inference.training.student import inherit, parameters, student_table
from tests.training import describe_tiny


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """Give a bundle that is wide enough to be narrowed."""
    described = load_bundle(describe_tiny(tmp_path), verify_weights=False)
    return replace(described, network={**described.network, "width": 32, "channels": 32, "decoder_width": 32})


def _share(bundle: Bundle, table: dict[str, object]) -> float:
    return parameters(replace(bundle, network=table)) / parameters(bundle)


def test_parameters_are_those_of_the_network(bundle: Bundle) -> None:
    """They are counted without making any."""
    assert parameters(bundle) == sum(parameter.numel() for parameter in build_network(bundle).parameters())


@pytest.mark.parametrize("share", [0.15, 0.4, 0.9])
def test_the_student_is_the_largest_that_fits(bundle: Bundle, share: float) -> None:
    """It has at most its share of the parameters, and with all widths a step larger it would have more than that."""
    table = student_table(bundle, share, {})

    assert _share(bundle, table) <= share
    steps = {key: int(str(table[key])) + 8 for key in ("width", "channels", "decoder_width")}
    assert _share(bundle, {**table, **steps}) > share
    assert {key for key in table if table[key] != bundle.network[key]} <= {"width", "channels", "decoder_width"}


@pytest.mark.parametrize("backbone", ["resnet50", "efficientnet_b0", "swin_t", "hrnet"])
def test_every_trunk_has_a_student(bundle: Bundle, backbone: str) -> None:
    """The table of each is one that builds."""
    wide = replace(bundle, network={**bundle.network, "backbone": backbone, "width": 64})

    assert _share(wide, student_table(wide, 0.4, {})) <= 0.4


def test_what_is_given_stays(bundle: Bundle) -> None:
    """A given width is not scaled; the others are."""
    table = student_table(bundle, 0.6, {"width": 16, "dropout": 0.1})

    assert (table["width"], table["dropout"]) == (16, 0.1)
    assert _share(bundle, table) <= 0.6


def test_a_student_that_is_too_large_is_refused_with_its_share(bundle: Bundle) -> None:
    """Given widths that leave too much are named by what they leave."""
    whole = {"width": 32, "channels": 32, "decoder_width": 32}

    with pytest.raises(BundleError, match=r"has 100\.0%, not at most 40\.0% of the original's parameters"):
        student_table(bundle, 0.4, whole)
    with pytest.raises(BundleError, match=r"between 0 and 1, not 1\.2"):
        student_table(bundle, 1.2, {})


def test_a_field_that_the_table_does_not_know_is_refused(bundle: Bundle) -> None:
    """As in bundle.toml."""
    with pytest.raises(BundleError, match=r"network\.depth: unknown field"):
        student_table(bundle, 0.4, {"depth": 3})


def test_a_pruned_original_has_a_student_without_its_widths(bundle: Bundle) -> None:
    """Channels inside blocks belong to the original's width."""
    pruned = replace(bundle, network={**bundle.network, "inner": [8, 16, 32, 64]})

    assert "inner" not in student_table(pruned, 0.4, {})


def test_a_student_of_the_same_width_is_the_teacher() -> None:
    """Nothing is lost where nothing is cut: it says the same."""
    config = HybridMedNetConfig(backbone="resnet10", width=8, channels=8, decoder_width=8, scales=(1.0, 0.5))
    teacher, student = (HybridMedNet(config, 2, 3, 3).eval() for _ in range(2))
    image = torch.rand(1, 1, 64, 64)

    inherit(student, teacher)

    with torch.no_grad():
        assert torch.equal(student(image).segmentation, teacher(image).segmentation)


def test_a_narrower_student_begins_with_the_first_channels() -> None:
    """Weights and statistics of the channels that are left are the teacher's."""
    config = HybridMedNetConfig(backbone="resnet10", width=16, channels=16, decoder_width=8, scales=(1.0,))
    teacher = HybridMedNet(config, 2, 3, 3)
    teacher.backbone.stem[1].running_mean += torch.arange(16)  # type: ignore[union-attr,index,operator] # a residual trunk
    student = HybridMedNet(replace(config, width=8, channels=8), 2, 3, 3)

    inherit(student, teacher)

    ours, theirs = student.state_dict(), teacher.state_dict()
    assert torch.equal(ours["backbone.stem.1.running_mean"], torch.arange(8.0))
    name = "backbone.stages.1.0.conv1.weight"
    assert torch.equal(ours[name], theirs[name][:16, :8])


def test_of_maps_side_by_side_the_first_channels_of_each_are_taken() -> None:
    """A head reads the means and the maxima of three levels: of each of the six the student has the first channels."""
    config = HybridMedNetConfig(backbone="resnet10", width=8, channels=16, decoder_width=8, scales=(1.0, 0.5))
    config = replace(config, alignment=True)
    teacher = HybridMedNet(config, 2, 3, 3)
    teacher.alignment[0][0].offsets.weight.data.normal_()  # type: ignore[index,union-attr,operator] # a convolution
    student = HybridMedNet(replace(config, channels=8), 2, 3, 3)

    inherit(student, teacher)

    ours, theirs = student.state_dict(), teacher.state_dict()
    head = theirs["heads.fine.weight"].reshape(3, 6, 16)[:, :, :8].reshape(3, 48)
    assert torch.equal(ours["heads.fine.weight"], head)
    offsets = theirs["alignment.0.0.offsets.weight"].reshape(2, 2, 16, 3, 3)[:, :, :8].reshape(2, 16, 3, 3)
    assert torch.equal(ours["alignment.0.0.offsets.weight"], offsets)


def test_a_narrower_transformer_keeps_queries_keys_and_values_apart() -> None:
    """Each has the first heads of the teacher's; merging reads the first channels of each of its four places."""
    config = HybridMedNetConfig(backbone="swin_t", width=64, channels=8, decoder_width=8, scales=(1.0,))
    teacher = HybridMedNet(config, 2, 3, 3)
    student = HybridMedNet(replace(config, width=32), 2, 3, 3)

    inherit(student, teacher)

    ours, theirs = student.state_dict(), teacher.state_dict()
    name = "backbone.layers.1.0.attn.qkv.weight"
    assert torch.equal(ours[name], theirs[name].reshape(3, 64, 64)[:, :32, :32].reshape(96, 32))
    name = "backbone.layers.2.reduction.weight"
    assert torch.equal(ours[name], theirs[name].reshape(128, 4, 64)[:64, :, :32].reshape(64, 128))
