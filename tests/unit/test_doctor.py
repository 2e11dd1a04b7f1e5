"""What the doctor says of single parts."""

from pathlib import Path

import pytest

from gateway.doctor import _check_torch


def test_a_torch_and_torchvision_that_do_not_load_together_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A CPU-only torch with the index's torchvision fails at import: the doctor says which pair to install."""
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    check = _check_torch()

    assert check.verdict == "failed"
    assert "torchvision::nms" in check.found
    assert "matching pair" in check.advice
