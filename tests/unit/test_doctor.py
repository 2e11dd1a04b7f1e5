"""What the doctor says of single parts."""

from pathlib import Path

import pytest

from gateway.config.dicom_tls import DicomTls
from gateway.doctor import _check_certificates, _check_torch


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


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ({}, []),
        ({"enabled": True}, [("warning", "none is mapped")]),
        ({"enabled": True, "client_certificate": "optional"}, []),
        ({"enabled": True, "certificates": {"cn:ct1": ("CT1",)}}, [("warning", "a port without TLS is open")]),
        ({"enabled": True, "plain": False, "certificates": {"cn:ct1": ("CT1",)}}, []),
        (
            {"enabled": True, "plain": False, "client_certificate": "none", "certificates": {"cn:ct1": ("CT1",)}},
            [("failed", "none is asked for")],
        ),
    ],
)
def test_certificates_that_prove_less_than_they_seem_to_are_told(
    section: dict[str, object], expected: list[tuple[str, str]]
) -> None:
    """A port without TLS beside a mapping, certificates without a mapping, a mapping without certificates."""
    checks = list(_check_certificates(DicomTls.model_validate(section)))

    assert [(check.verdict, words) for check, (_, words) in zip(checks, expected, strict=True)] == expected
    assert all(words in check.found for check, (_, words) in zip(checks, expected, strict=True))
