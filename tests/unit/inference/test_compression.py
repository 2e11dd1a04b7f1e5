"""int8 weights: how far they may differ, that they come back, and when a compressed bundle is refused."""

import hashlib
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from inference.bundle import load_bundle
from inference.errors import BundleError
from inference.networks.hybridmednet import HybridMedNet
from inference.networks.weights import build_network, dequantise, load_network, quantise, save_quantised_weights
from inference.training.figures import write_table
from inference.training.variants import Figures
from tests.training import describe_tiny

_CPU = torch.device("cpu")
_BEFORE = Figures(coarse_accuracy=0.95, fine_accuracy=0.8, dice={"right-lung": 0.94, "left-lung": 0.93}, answered=0.99)


def _declare(folder: Path, encoding: str) -> None:
    weights = folder / "weights.safetensors"
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    write_table(folder / "bundle.toml", "weights", {"file": weights.name, "encoding": encoding, "sha256": digest})


@pytest.fixture
def network_and_bundle(tmp_path: Path) -> tuple[HybridMedNet, Path]:
    """Give a network and the bundle folder that holds it as int8."""
    torch.manual_seed(0)
    network = build_network(load_bundle(describe_tiny(tmp_path), verify_weights=False))
    save_quantised_weights(network, tmp_path / "weights.safetensors")
    _declare(tmp_path, "int8")
    return network, tmp_path


@pytest.mark.parametrize("shape", [(5, 7), (6, 3, 3, 3), (1, 1, 1, 1)])
@pytest.mark.parametrize("size", [1e-6, 1.0, 1e4])
def test_the_error_is_at_most_half_a_scale(shape: tuple[int, ...], size: float) -> None:
    """Each weight comes back within half the scale of its own output channel, whatever its size."""
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(1)) * size

    levels, scale = quantise(weight)

    error = (dequantise(levels, scale) - weight).abs().flatten(1).amax(dim=1)
    assert (levels.dtype, levels.shape, scale.shape) == (torch.int8, weight.shape, weight.shape[:1])
    assert (error <= 0.5001 * scale).all()


def test_the_largest_weight_of_a_channel_uses_the_whole_range() -> None:
    """Channels have scales of their own: a small one beside a large one keeps its 255 levels."""
    levels, scale = quantise(torch.tensor([[100.0, -50.0], [0.001, -0.002]]))

    assert levels.tolist() == [[127, -64], [64, -127]]
    assert scale.tolist() == pytest.approx([100 / 127, 0.002 / 127])


def test_a_channel_of_zeros_stays_zero() -> None:
    """A dead channel divides nothing by zero."""
    levels, scale = quantise(torch.zeros(2, 3))

    assert torch.equal(dequantise(levels, scale), torch.zeros(2, 3))


def test_quantising_again_changes_nothing() -> None:
    """Weights that came back from int8 go to the same levels."""
    levels, scale = quantise(torch.randn(4, 9, generator=torch.Generator().manual_seed(2)))

    assert torch.equal(quantise(dequantise(levels, scale))[0], levels)


def test_the_file_holds_int8_matrices_and_float16(network_and_bundle: tuple[HybridMedNet, Path]) -> None:
    """Convolutions and linear layers are int8 with a scale for each output channel, other numbers float16."""
    stored = load_file(network_and_bundle[1] / "weights.safetensors")

    matrices = {name for name, tensor in stored.items() if tensor.ndim > 1}
    assert {stored[name].dtype for name in matrices} == {torch.int8}
    assert all(stored[f"{name}.scale"].shape == stored[name].shape[:1] for name in matrices)
    rest = {name for name in stored if name not in matrices and not name.endswith((".scale", "num_batches_tracked"))}
    assert {stored[name].dtype for name in rest} == {torch.float16}


def test_a_loaded_network_has_the_same_shapes_and_nearly_the_same_weights(
    network_and_bundle: tuple[HybridMedNet, Path],
) -> None:
    """Every tensor comes back in its shape and type, within a 254th of its largest value."""
    network, folder = network_and_bundle

    loaded = load_network(load_bundle(folder), _CPU).state_dict()

    original = network.state_dict()
    assert {name: (tensor.shape, tensor.dtype) for name, tensor in loaded.items()} == {
        name: (tensor.shape, tensor.dtype) for name, tensor in original.items()
    }
    assert all(
        (loaded[name].double() - tensor.double()).abs().max() <= tensor.double().abs().max() / 253 + 1e-4
        for name, tensor in original.items()
    )


def test_an_unknown_encoding_is_refused(network_and_bundle: tuple[HybridMedNet, Path]) -> None:
    """Weights in an encoding that is not known are not guessed at."""
    _declare(network_and_bundle[1], "int4")

    with pytest.raises(BundleError, match=r"weights\.encoding: 'int4' is none of float, int8, int8-onnx"):
        load_bundle(network_and_bundle[1])


def test_int8_without_its_scale_is_refused(network_and_bundle: tuple[HybridMedNet, Path]) -> None:
    """A file that lacks a scale does not fit."""
    folder = network_and_bundle[1]
    stored = load_file(folder / "weights.safetensors")
    save_file(
        {name: stored[name] for name in stored if name != "heads.fine.weight.scale"}, folder / "weights.safetensors"
    )
    _declare(folder, "int8")

    with pytest.raises(BundleError, match=r"does not fit .*heads\.fine\.weight\.scale"):
        load_network(load_bundle(folder), _CPU)


def test_int8_declared_as_float_is_refused(network_and_bundle: tuple[HybridMedNet, Path]) -> None:
    """Levels are never taken for weights."""
    folder = network_and_bundle[1]
    _declare(folder, "float")

    with pytest.raises(BundleError, match="does not fit"):
        load_network(load_bundle(folder), _CPU)


def test_weights_that_changed_after_they_were_checked_are_refused(
    network_and_bundle: tuple[HybridMedNet, Path],
) -> None:
    """Other weights of the same shapes, put in place between the check of the bundle and its first study."""
    folder = network_and_bundle[1]
    _declare(folder, "int8")
    bundle = load_bundle(folder)
    stored = load_file(bundle.weights_path)
    name = next(name for name, tensor in stored.items() if tensor.dtype == torch.int8)
    save_file(stored | {name: -stored[name]}, bundle.weights_path)

    with pytest.raises(BundleError, match="was changed after it was checked"):
        load_network(bundle, _CPU)


@pytest.mark.parametrize(
    "after",
    [
        _BEFORE,
        replace(_BEFORE, coarse_accuracy=0.99, fine_accuracy=0.9),
        replace(_BEFORE, coarse_accuracy=0.9405, fine_accuracy=0.7905),
        replace(_BEFORE, dice={"right-lung": 0.9305, "left-lung": 0.97}),
        replace(_BEFORE, answered=0.9805),
    ],
)
def test_small_falls_are_accepted(after: Figures) -> None:
    """Less than a point of accuracy or of the answered share, and less than 0.01 Dice may be lost."""
    assert _BEFORE.falls(after) == []


@pytest.mark.parametrize(
    ("after", "said"),
    [
        (replace(_BEFORE, coarse_accuracy=0.938), "coarse accuracy from 0.9500 to 0.9380"),
        (replace(_BEFORE, fine_accuracy=0.78), "fine accuracy from 0.8000 to 0.7800"),
        (replace(_BEFORE, dice={"right-lung": 0.95, "left-lung": 0.9}), "Dice of left-lung from 0.9300 to 0.9000"),
        (replace(_BEFORE, answered=0.97), "answered share from 0.9900 to 0.9700"),
        (replace(_BEFORE, fine_accuracy=math.nan), "fine accuracy from 0.8000 to nan"),
    ],
)
def test_a_fall_too_far_is_named_with_both_values(after: Figures, said: str) -> None:
    """One figure suffices; one that is not known counts as lost."""
    (fall,) = _BEFORE.falls(after)

    assert fall.startswith(said)
