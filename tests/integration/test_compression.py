"""Compressing a trained bundle: the result is a bundle of its own, or there is none."""

import hashlib
import shutil
import tomllib
from pathlib import Path

import pytest
import torch

from inference.bundle import load_bundle
from inference.errors import BundleError
from inference.networks.weights import load_network, save_weights
from inference.training.compression import CompressionReport, compress
from inference.training.figures import write_digest
from inference.training.progress import Progress
from inference.training.run import evaluate

Trained = tuple[Path, list[Progress]]


def _compress(bundle: Path, data: Path, out: Path) -> CompressionReport:
    return compress(bundle, data, out, device="cpu", report=lambda _: None)


@pytest.fixture
def fragile(trained: Trained, tmp_path: Path) -> Path:
    """Give a bundle that int8 ruins: large weights, which a channel that is always zero keeps harmless in float."""
    folder = Path(shutil.copytree(trained[0], tmp_path / "fragile"))
    bundle = load_bundle(folder)
    network = load_network(bundle, torch.device("cpu"))
    for _, norm, _ in network.decoder.lift:
        norm.weight[0] = norm.bias[0] = 0
    network.decoder.classify.weight[:, 0] = 10_000
    save_weights(network, bundle.weights_path)
    write_digest(folder / "bundle.toml", hashlib.sha256(bundle.weights_path.read_bytes()).hexdigest())
    return folder


def test_the_result_is_a_bundle_of_its_own(trained: Trained, chests: Path, tmp_path: Path) -> None:
    """Name, digest, encoding and figures are those of the new weights, which take about half the room."""
    made = _compress(trained[0], chests, tmp_path / "new" / "bundles")

    original, bundle = load_bundle(trained[0]), load_bundle(tmp_path / "new" / "bundles" / "cxr-pneumonia-int8")
    assert (made.folder, made.name, bundle.encoding) == (bundle.path, bundle.name, "int8")
    assert (bundle.name, bundle.version) == ("cxr-pneumonia-int8", original.version)
    assert bundle.algorithm.weights_digest == made.weights_sha256 != original.algorithm.weights_digest
    assert bundle.evaluation["weights_sha256"] == made.weights_sha256
    assert (bundle.levels, bundle.segments, bundle.temperatures) == (
        original.levels,
        original.segments,
        original.temperatures,
    )
    assert bundle.weights_path.stat().st_size < 0.75 * original.weights_path.stat().st_size
    assert [path.name for path in bundle.path.parent.iterdir()] == [bundle.path.name]


def test_what_was_compared_stands_in_the_bundle(trained: Trained, chests: Path, tmp_path: Path) -> None:
    """The `[compression]` table names the original and both sets of figures, as evaluating either again finds them."""
    made = _compress(trained[0], chests, tmp_path)

    table = tomllib.loads((made.folder / "bundle.toml").read_text(encoding="utf-8"))["compression"]
    assert table == made.to_table()
    assert (table["of"], table["of_sha256"]) == ("cxr-pneumonia", load_bundle(trained[0]).algorithm.weights_digest)
    for folder, when in ((trained[0], "before"), (made.folder, "after")):
        figures = evaluate(folder, chests, device="cpu", report=lambda _: None).to_dict()
        assert table[when]["dice"] == figures["dice"]
        assert table[when]["fine_accuracy"] == figures["fine"]["accuracy"]  # type: ignore[index] # a table


def test_a_bundle_that_answers_worse_is_not_kept(fragile: Path, chests: Path, tmp_path: Path) -> None:
    """The refusal names the figure before and after, and no file or folder is left."""
    with pytest.raises(BundleError, match=r"cxr-pneumonia is not kept as int8: .* from 0\.\d+ to [01]\.\d+"):
        _compress(fragile, chests, tmp_path / "new" / "bundles")

    assert [path.name for path in tmp_path.iterdir()] == ["fragile"]


def test_neither_a_compressed_bundle_nor_an_old_one_is_overwritten(
    trained: Trained, chests: Path, tmp_path: Path
) -> None:
    """What is there stays, and int8 is not compressed again."""
    made = _compress(trained[0], chests, tmp_path)

    with pytest.raises(BundleError, match="exists already"):
        _compress(trained[0], chests, tmp_path)
    with pytest.raises(BundleError, match="'int8' already"):
        _compress(made.folder, chests, tmp_path)
