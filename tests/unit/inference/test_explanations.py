"""Which bundles can be explained."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateway.cli.app import app
from gateway.errors import GatewayError
from inference.bundle import load_bundle
from inference.errors import BundleError
from inference.foreign.spec import Allowance
from inference.training.explanations import check_explained
from inference.training.figures import write_table
from tests.training import describe_tiny


@pytest.fixture
def graphs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a bundle that says that its weights are graphs, and may run."""
    folder = describe_tiny(tmp_path)
    (folder / "weights.safetensors").write_bytes(b"graphs")
    digest = hashlib.sha256(b"graphs").hexdigest()
    weights = {"file": "weights.safetensors", "encoding": "int8-onnx", "sha256": digest}
    write_table(folder / "bundle.toml", "weights", weights)
    monkeypatch.setenv("HYBRIDMED_FOREIGN_BUNDLES", f"cxr-pneumonia={digest}")
    return folder


def test_graphs_are_not_explained(graphs: Path) -> None:
    """They have no gradients; the sentence says what to do instead."""
    with pytest.raises(BundleError, match="'int8-onnx', which has no gradients: explain the one it was made of"):
        check_explained(load_bundle(graphs, verify_weights=False, allowance=Allowance(("cxr-pneumonia",))))


def test_the_command_says_so_before_it_evaluates(graphs: Path) -> None:
    """The data set, which has nothing in it, is not even read."""
    result = CliRunner().invoke(app, ["evaluate", str(graphs), "--data", str(graphs), "--explain", "2"])

    assert result.exit_code == 1
    assert isinstance(result.exception, GatewayError)
    assert "has no gradients" in str(result.exception)
