"""Foreign networks: refused unless allowed, nothing of them evaluated but the network, shown what they expect."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from inference.bundle import Bundle, find_bundles, load_bundle
from inference.errors import BundleError
from inference.foreign.load import load_foreign
from inference.foreign.monai_bundle import NETWORKS, check_metadata, open_monai
from inference.foreign.network import ForeignNetwork
from inference.foreign.pin import pin
from inference.foreign.spec import Allowance, ForeignSpec
from tests.foreign_bundles import MONAI_CONFIG, make_monai, make_onnx, make_torchscript

_CPU = torch.device("cpu")


def _loaded(bundle: Bundle) -> ForeignNetwork:
    assert bundle.foreign is not None
    return load_foreign(bundle, bundle.foreign, _CPU)


@pytest.mark.parametrize("make", [make_torchscript, make_onnx, make_monai])
def test_a_foreign_bundle_is_refused_unless_it_is_allowed(tmp_path: Path, make: Callable[[Path], Bundle]) -> None:
    """The sentence says what to set; the name, or name and digest, let it in, another digest does not."""
    digest = make(tmp_path / "ward").algorithm.weights_digest

    refused, (problem,) = find_bundles([tmp_path])
    other, _ = find_bundles([tmp_path], Allowance(("ward=" + "0" * 64,)))
    by_name, _ = find_bundles([tmp_path], Allowance(("ward",)))
    by_digest, _ = find_bundles([tmp_path], Allowance((f"ward={digest}",)))

    assert (refused, other) == ((), ())
    assert f'foreign_bundles = ["ward={digest}"]' in str(problem)
    assert [bundle.name for bundle in (*by_name, *by_digest)] == ["ward", "ward"]


def test_a_network_that_changes_after_the_check_is_not_run(tmp_path: Path) -> None:
    """What is run are the bytes whose digest was checked."""
    bundle = make_torchscript(tmp_path / "ward")
    bundle.weights_path.write_bytes(b"something else")

    with pytest.raises(BundleError, match="was changed after it was checked"):
        _loaded(bundle)


def test_another_answer_than_the_pinned_one_is_refused(tmp_path: Path) -> None:
    """A foreign network has a self-test as ours have."""
    bundle = make_onnx(tmp_path / "ward")
    file = tmp_path / "ward" / "bundle.toml"
    lines = ["expected = [9.0, 9.0]" if line.startswith("expected") else line for line in file.read_text().split("\n")]
    file.write_text("\n".join(lines))

    with pytest.raises(BundleError, match=r"self_test\.expected: the network's answer is .* off"):
        _loaded(load_bundle(bundle.path, allowance=Allowance(("ward",))))


def test_onnx_weights_in_a_further_file_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No digest pins that file, wherever the service was started."""
    with monkeypatch.context() as patch, pytest.raises(BundleError, match="cannot be run by ONNX Runtime"):
        patch.chdir(tmp_path)
        make_onnx(tmp_path / "ward", is_split=True)


def test_an_output_of_another_width_is_named(tmp_path: Path) -> None:
    """The channels found and those that bundle.toml asks for stand in the error."""
    bundle = make_torchscript(tmp_path / "ward")
    file = bundle.path / "bundle.toml"
    swapped = file.read_text().replace('["brightness", "segments"]', '["segments", "brightness"]')
    file.write_text(swapped)

    with pytest.raises(BundleError, match="cannot evaluate a made-up input: the output 'segments' has 2 dimensions"):
        pin(bundle.path)


class _Along:
    """A network that tells where its first spatial axis leads: it scores the second class by the place on it."""

    def __call__(self, volume: Tensor) -> Tensor:
        place = torch.arange(volume.shape[2]).view(1, 1, -1, 1, 1).expand(volume.shape).float()
        return torch.cat([torch.zeros_like(place), place], dim=1)


@pytest.mark.parametrize(
    ("orientation", "axis", "is_rising"),
    [("SPL", 2, True), ("IPL", 2, False), ("RAS", 4, False), ("LPS", 4, True), ("ALS", 3, False)],
)
def test_axes_are_turned_as_the_network_expects_and_back(orientation: str, axis: int, is_rising: bool) -> None:
    """Its first axis leads where `orientation` says, seen from the project's (z, y, x)."""
    spec = ForeignSpec("onnx", ("segments",), False, (0.0,), (1.0,), orientation, None, "")
    network = ForeignNetwork(_Along(), spec, {"segments": 2})

    scores = network(torch.zeros(1, 1, 3, 4, 5))

    assert scores.shape == (1, 2, 3, 4, 5)
    steps = scores[:, 1].diff(dim=axis - 1)
    assert (steps == (1 if is_rising else -1)).all()
    assert all((scores[:, 1].diff(dim=other) == 0).all() for other in {1, 2, 3} - {axis - 1})


@pytest.mark.parametrize(("given", "expected"), [([[0.25]], [[0.75, 0.25]]), ([[0.6, 0.4]], [[0.6, 0.4]])])
def test_probabilities_stay_what_they_are(given: list[list[float]], expected: list[list[float]]) -> None:
    """A softmax over the scores gives the network's own probabilities; one channel tells two classes."""
    spec = ForeignSpec("onnx", ("level",), True, (0.0,), (1.0,), None, None, "")
    network = ForeignNetwork(lambda _: torch.tensor(given), spec, {"level": 2})

    probabilities = torch.softmax(network.scores(torch.zeros(1, 1, 8, 8))["level"], dim=1)

    assert torch.allclose(probabilities, torch.tensor(expected), atol=1e-6)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"_target_": "os.system"}, "'os.system' is none of"),
        ({"_target_": "$__import__('os')"}, "is none of"),
        ({"features": "$[8] * 6"}, r"network_def.features: .* is an expression, which is not evaluated"),
        ({"features": "@missing"}, "there is no 'missing'"),
        ({"norm": {"_target_": "os.system"}}, "only plain arguments are taken"),
        ({"colour": "red"}, "does not take these arguments"),
    ],
)
def test_nothing_of_a_monai_definition_is_evaluated(change: dict[str, object], reason: str) -> None:
    """Expressions, other classes and nested objects are refused by name."""
    config = {**MONAI_CONFIG, "network_def": {**MONAI_CONFIG["network_def"], **change}}  # type: ignore[dict-item]

    with pytest.raises(BundleError, match=reason):
        open_monai(b"", Path("model.pt"), json.dumps(config).encode(), Path("inference.json"))


class _Harmful:
    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("harm",)


def test_a_pickle_in_a_monai_bundle_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights that hold more than weights are refused before anything of them runs."""
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": _Harmful()}, tmp_path / "model.pt")

    with pytest.raises(BundleError, match="holds more than weights"):
        open_monai(
            (tmp_path / "model.pt").read_bytes(),
            tmp_path / "model.pt",
            json.dumps(MONAI_CONFIG).encode(),
            Path("inference.json"),
        )
    assert not (tmp_path / "harm").exists()


def test_every_listed_class_of_monai_exists() -> None:
    """The list names classes of the MONAI that is installed."""
    from monai.networks import nets  # noqa: PLC0415 # seconds

    assert [name for name in NETWORKS if not callable(getattr(nets, name, None))] == []


def test_metadata_that_tells_of_other_channels_is_named(tmp_path: Path) -> None:
    """The place in metadata.json and both numbers are told."""
    file = tmp_path / "metadata.json"
    file.write_text(json.dumps({"network_data_format": {"outputs": {"pred": {"num_channels": 5}}}}))

    with pytest.raises(BundleError, match=r"outputs\.pred\.num_channels: is 5, bundle\.toml asks for 3"):
        check_metadata(file, 1, 3)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('kind = "torchscript"', 'kind = "torchscript"\nspeed = 1', "network.speed: unknown field"),
        ('outputs = ["brightness", "segments"]', 'outputs = ["brightness"]', "must name each of brightness, segments"),
        ("std = [0.5, 0.5, 0.5]", "std = [0.5]", "must hold a positive number for each of mean"),
        ('positive = "bright"', 'positive = "bright"\nheat_map = true', "a foreign network gives no heat map"),
        ('file = "network.pt"', 'file = "../network.pt"', "must lie in the bundle's folder"),
    ],
)
def test_a_wrong_table_is_named(tmp_path: Path, old: str, new: str, reason: str) -> None:
    """File, field and what was expected."""
    folder = make_torchscript(tmp_path / "ward").path
    text = (folder / "bundle.toml").read_text()
    assert old in text
    (folder / "bundle.toml").write_text(text.replace(old, new))

    with pytest.raises(BundleError, match=reason):
        load_bundle(folder, allowance=Allowance(("ward",)))
