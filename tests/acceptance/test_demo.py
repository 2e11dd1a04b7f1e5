"""`hybridmed demo` as a new user runs it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.studies import REPOSITORY

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(900)]


def test_demo_shows_findings_pictures_and_an_address(tmp_path: Path) -> None:
    """Three samples go in; a table of findings, pictures that open, and an address come out."""
    ended = subprocess.run(
        [sys.executable, "-m", "gateway", "demo", "--folder", str(tmp_path / "demo"), "--exit"],
        env={**os.environ, "HYBRIDMED_DEVICE": "cpu"},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )

    assert ended.returncode == 0, ended.stderr + ended.stdout
    pictures = sorted((tmp_path / "demo" / "pictures").glob("*.png"))
    assert {"cxr-bacterial-overlay.png", "cxr-normal-overlay.png", "cxr-viral-overlay.png"} <= {
        picture.name for picture in pictures
    }
    for picture in pictures:
        with Image.open(picture) as opened:
            assert opened.convert("L").getextrema()[1] > 0
    for sample in ("cxr-bacterial", "cxr-normal", "cxr-viral"):
        assert f"{sample} " in ended.stdout
    assert "coarse: pneumonia" in ended.stdout
    assert "http://127.0.0.1:" in ended.stdout
