"""Compressing a trained bundle: the result is a bundle of its own, or there is none."""

import hashlib
import json
import re
import shutil
import tomllib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from gateway.cli.app import app
from inference.bundle import load_bundle
from inference.errors import BundleError
from inference.foreign.spec import Allowance
from inference.networks.weights import load_network, save_weights
from inference.training.card import write_section
from inference.training.compression import Comparison, Distilling, Int8, Int8Weights, compare, compress
from inference.training.figures import write_digest
from inference.training.making import Method
from inference.training.progress import Progress
from inference.training.run import evaluate

Trained = tuple[Path, list[Progress]]
_ALLOWED = Allowance(("cxr-pneumonia-int8",))
_STUDENT = Distilling(share=0.999, epochs=2, network={"scales": [1.0]})
"""The tiny bundle has the narrowest widths already; one scale less is what a student of it can do without."""


class Interrupted(Exception):
    """Stands for a killed process."""


def _compress(bundle: Path, data: Path, out: Path, method: Method) -> Comparison:
    return compress(bundle, data, out, method, device="cpu", report=lambda _: None)


@pytest.fixture(scope="module")
def int8(trained: Trained, chests: Path, tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """Give the trained bundle in int8, alone in its folder."""
    return _compress(trained[0], chests, tmp_path_factory.mktemp("int8") / "new" / "bundles", Int8())


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


def test_the_result_is_a_bundle_of_its_own(trained: Trained, int8: Comparison) -> None:
    """Name, digest, encoding and figures are those of the new weights, which are smaller."""
    original, bundle = load_bundle(trained[0]), load_bundle(int8.made.folder, allowance=_ALLOWED)

    assert (bundle.name, bundle.encoding, bundle.version) == ("cxr-pneumonia-int8", "int8-onnx", original.version)
    assert bundle.algorithm.weights_digest == int8.made.weights_sha256 != original.algorithm.weights_digest
    assert bundle.evaluation["weights_sha256"] == int8.made.weights_sha256
    assert (bundle.levels, bundle.segments) == (original.levels, original.segments)
    assert bundle.novelty is not None and bundle.self_test is not None and bundle.calibration["images"]
    assert int8.made.parameters == int8.original.parameters
    assert [path.name for path in bundle.path.parent.iterdir()] == [bundle.path.name]


def test_what_was_compared_stands_in_the_bundle(trained: Trained, chests: Path, int8: Comparison) -> None:
    """The `[compression]` table names the original and both sets of figures, as evaluating either again finds them."""
    table = tomllib.loads((int8.made.folder / "bundle.toml").read_text(encoding="utf-8"))["compression"]

    assert table == int8.to_table()
    assert (table["of"], table["of_sha256"]) == ("cxr-pneumonia", load_bundle(trained[0]).algorithm.weights_digest)
    for folder, when in ((trained[0], "before"), (int8.made.folder, "after")):
        figures = evaluate(folder, chests, device="cpu", report=lambda _: None, allowance=_ALLOWED).to_dict()
        assert table[when]["dice"] == figures["dice"]
        assert table[when]["fine_accuracy"] == figures["fine"]["accuracy"]  # type: ignore[index] # a table
        assert table[when]["bytes"] == (folder / "weights.safetensors").stat().st_size
        assert 0 < table[when]["p50_ms"] <= table[when]["p95_ms"]
        assert table[when]["images_per_s"] > 0 and table[when]["peak_mib"] > 0


def test_the_card_tells_both(int8: Comparison) -> None:
    """The model card is the new bundle's own: its name, what it was made of, and the figures of both."""
    card = (int8.made.folder / "README.md").read_text(encoding="utf-8")

    assert card.startswith("# cxr-pneumonia-int8: model card\n")
    assert "not a medical device" in card and int8.original.weights_sha256[:12] in card
    after = int8.made.figures
    assert f"| {int8.original.figures.coarse_accuracy:.1%} | {after.coarse_accuracy:.1%} |" in card
    assert f"| {int8.original.bytes / 1000:,.0f} kB | {int8.made.bytes / 1000:,.0f} kB |" in card
    assert str(int8.made.speed.device) in card


def test_int8_weights_take_about_half_the_room(trained: Trained, chests: Path, tmp_path: Path) -> None:
    """They are stored in int8, and the network is the same."""
    made = _compress(trained[0], chests, tmp_path, Int8Weights()).made

    bundle = load_bundle(made.folder)
    assert (bundle.name, bundle.encoding) == ("cxr-pneumonia-int8-weights", "int8")
    assert bundle.weights_path.stat().st_size < 0.75 * load_bundle(trained[0]).weights_path.stat().st_size


@pytest.mark.parametrize("method", [Int8(), Int8Weights()])
def test_a_bundle_that_answers_worse_is_not_kept(fragile: Path, chests: Path, tmp_path: Path, method: Method) -> None:
    """The refusal names the figure before and after, and no file or folder is left."""
    with pytest.raises(BundleError, match=rf"{method.suffix} is not kept \(.*100%.*\): .* from 0\.\d+ to [01]\.\d+"):
        _compress(fragile, chests, tmp_path / "new" / "bundles", method)

    assert [path.name for path in tmp_path.iterdir()] == ["fragile"]


def test_neither_a_compressed_bundle_nor_an_old_one_is_overwritten(
    trained: Trained, chests: Path, int8: Comparison
) -> None:
    """What is there stays, and int8 is not compressed again."""
    out = int8.made.folder.parent

    with pytest.raises(BundleError, match="exists already"):
        _compress(trained[0], chests, out, Int8())
    with pytest.raises(BundleError, match="'int8-onnx' already"):
        compress(int8.made.folder, chests, out, Int8(), device="cpu", report=lambda _: None, allowance=_ALLOWED)


def test_a_student_that_was_cut_off_goes_on_with_the_same_result(
    trained: Trained, chests: Path, tmp_path: Path
) -> None:
    """Killed in its second epoch and asked for again, it ends with the weights of one that was left alone."""

    def interrupt(step: Progress) -> None:
        if step.stage == "train" and step.epoch == 2 and step.done == step.total:
            raise Interrupted

    whole = _compress(trained[0], chests, tmp_path / "whole", _STUDENT)
    with pytest.raises(Interrupted):
        compress(trained[0], chests, tmp_path / "cut", _STUDENT, device="cpu", report=interrupt)
    (hidden,) = (tmp_path / "cut").iterdir()
    assert hidden.name.startswith(".") and not list((tmp_path / "cut").glob("*/bundle.toml"))
    seen: list[Progress] = []
    cut = compress(trained[0], chests, tmp_path / "cut", _STUDENT, device="cpu", report=seen.append)

    assert {step.epoch for step in seen if step.stage == "train"} == {2}
    weights, others = (load_file(each.made.folder / "weights.safetensors") for each in (whole, cut))
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    bundle = load_bundle(cut.made.folder)
    assert (bundle.name, bundle.network["scales"]) == ("cxr-pneumonia-distilled", [1.0])
    assert cut.made.parameters < cut.original.parameters
    assert [path.name for path in (tmp_path / "cut").iterdir()] == [bundle.name]


def test_a_student_that_learnt_something_else_is_not_gone_on_from(
    trained: Trained, chests: Path, tmp_path: Path
) -> None:
    """With other settings learning begins anew."""
    seen: list[Progress] = []

    def interrupt(step: Progress) -> None:
        seen.append(step)
        if step.stage == "train" and step.epoch == 2:
            raise Interrupted

    with pytest.raises(Interrupted):
        compress(trained[0], chests, tmp_path, _STUDENT, device="cpu", report=interrupt)
    other = Distilling(share=0.999, epochs=2, network={"scales": [1.0], "attention": "se"})
    seen.clear()
    with pytest.raises(Interrupted):
        compress(trained[0], chests, tmp_path, other, device="cpu", report=interrupt)

    assert min(step.epoch for step in seen if step.stage == "train") == 1


def test_with_another_split_learning_begins_anew(trained: Trained, chests: Path, tmp_path: Path) -> None:
    """A checkpoint that saw the groups which are now for validation is never gone on from."""
    other = Path(shutil.copytree(trained[0], tmp_path / "other"))
    text = (other / "bundle.toml").read_text(encoding="utf-8")
    changed = re.sub(r"^split_seed = .*$", "split_seed = 987", text, flags=re.MULTILINE)
    assert changed != text
    (other / "bundle.toml").write_text(changed, encoding="utf-8")
    seen: list[Progress] = []

    def interrupt(step: Progress) -> None:
        seen.append(step)
        if step.stage == "train" and step.epoch == 2:
            raise Interrupted

    with pytest.raises(Interrupted):
        compress(trained[0], chests, tmp_path / "out", _STUDENT, device="cpu", report=interrupt)
    seen.clear()
    with pytest.raises(Interrupted):
        compress(other, chests, tmp_path / "out", _STUDENT, device="cpu", report=interrupt)

    assert min(step.epoch for step in seen if step.stage == "train") == 1


def test_what_was_learnt_is_kept_until_the_bundle_is_there(trained: Trained, chests: Path, tmp_path: Path) -> None:
    """Cut off at the last step, when another run's folder stands in the way, the next call learns nothing again."""
    blocked = tmp_path / "cxr-pneumonia-distilled"

    def stand_in_the_way(step: Progress) -> None:
        if step.stage == "evaluate after":
            (blocked / "file").mkdir(parents=True, exist_ok=True)

    with pytest.raises(OSError, match="not empty"):
        compress(trained[0], chests, tmp_path, _STUDENT, device="cpu", report=stand_in_the_way)
    shutil.rmtree(blocked)
    seen: list[Progress] = []
    made = compress(trained[0], chests, tmp_path, _STUDENT, device="cpu", report=seen.append).made

    assert "train" not in {step.stage for step in seen}
    assert [path.name for path in tmp_path.iterdir()] == [made.folder.name]


def test_all_that_were_made_are_compared(trained: Trained, chests: Path, int8: Comparison, tmp_path: Path) -> None:
    """The original first, another bundle's variant left out; tables and cards get the figures, all else stays."""
    out = Path(shutil.copytree(int8.made.folder.parent, tmp_path / "out"))
    stranger = Path(shutil.copytree(int8.made.folder, out / "stranger"))
    text = (stranger / "bundle.toml").read_text(encoding="utf-8")
    (stranger / "bundle.toml").write_text(text.replace(int8.original.weights_sha256, "0" * 64), encoding="utf-8")
    card = out / int8.made.name / "README.md"
    card.write_text(card.read_text(encoding="utf-8") + "\nSeen by the physicist.\n", encoding="utf-8")
    write_section(card.parent, "ablation", "What each part is worth.")

    with pytest.raises(BundleError, match="foreign_bundles"):
        compare(trained[0], chests, out, device="cpu", report=lambda _: None)
    rows = compare(trained[0], chests, out, device="cpu", report=lambda _: None, allowance=_ALLOWED)

    assert [row.name for row in rows] == ["cxr-pneumonia", "cxr-pneumonia-int8"]
    assert rows[1].figures == int8.made.figures
    table = tomllib.loads((out / int8.made.name / "bundle.toml").read_text(encoding="utf-8"))["compression"]
    assert table["after"] == rows[1].to_table() and table["before"] == rows[0].to_table()
    text = card.read_text(encoding="utf-8")
    assert "Seen by the physicist." in text and "What each part is worth." in text
    assert text.count("## Beside the original") == 1
    assert f"| {rows[0].speed.p50_ms:.1f} ms | {rows[1].speed.p50_ms:.1f} ms |" in text


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--method", "int8", "--share", "0.3"], "--share is not for --method int8"),
        (["--method", "distilled", "--network", "width"], "FIELD=VALUE"),
    ],
)
def test_options_of_another_method_are_refused(
    trained: Trained, chests: Path, tmp_path: Path, options: list[str], said: str
) -> None:
    """The command says which, before it begins."""
    result = CliRunner().invoke(
        app, ["compress", str(trained[0]), "--data", str(chests), "--out", str(tmp_path), *options]
    )

    assert result.exit_code == 2
    assert said in " ".join(result.output.replace("│", " ").split())


def test_the_command_prints_both_as_json(trained: Trained, chests: Path, tmp_path: Path) -> None:
    """One object for the original, one for the new bundle."""
    asked = ["compress", str(trained[0]), "--data", str(chests), "--out", str(tmp_path), "--method", "int8-weights"]
    result = CliRunner().invoke(app, [*asked, "--device", "cpu", "--json"])

    before, after = json.loads(result.stdout)
    assert (before["method"], after["name"]) == ("original", "cxr-pneumonia-int8-weights")
    assert after["bytes"] < before["bytes"] and after["dice"].keys() == before["dice"].keys()


def test_the_command_prints_how_to_allow_graphs(
    trained: Trained, chests: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are refused until the line stands in the settings; with it they are evaluated."""
    asked = [str(trained[0]), "--data", str(chests), "--out", str(tmp_path), "--method", "int8", "--device", "cpu"]
    done = CliRunner().invoke(app, ["compress", *asked])

    assert done.exit_code == 0, done.output
    digest = hashlib.sha256((tmp_path / "cxr-pneumonia-int8" / "weights.safetensors").read_bytes()).hexdigest()
    entry = f"cxr-pneumonia-int8={digest}"
    assert f'Allow it: foreign_bundles = ["{entry}"]' in done.output
    evaluated = ["evaluate", str(tmp_path / "cxr-pneumonia-int8"), "--data", str(chests), "--device", "cpu", "--json"]
    refused = CliRunner().invoke(app, evaluated)
    monkeypatch.setenv("HYBRIDMED_FOREIGN_BUNDLES", entry)
    allowed = CliRunner().invoke(app, evaluated)
    assert refused.exit_code == 1
    assert allowed.exit_code == 0, allowed.output
