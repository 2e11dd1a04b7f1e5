"""The shipped X-rays are valid Digital X-Ray Images to another's validator and decoder."""

import subprocess
from pathlib import Path

import pytest

from tests.studies import RealData


@pytest.mark.parametrize("number", range(3))
def test_dciodvfy_finds_no_error_in_the_sample_xrays(real_data: RealData, number: int) -> None:
    """Every mandatory attribute of the DX IOD is there, with a value that the standard allows."""
    ended = subprocess.run(["dciodvfy", real_data.cxr[number]], capture_output=True, text=True, timeout=60, check=False)

    assert "DXImageForPresentation" in ended.stdout + ended.stderr
    assert "Error" not in ended.stdout + ended.stderr


@pytest.mark.parametrize("number", range(3))
def test_dcmtk_decodes_the_sample_xrays(real_data: RealData, number: int, tmp_path: Path) -> None:
    """The encapsulated JPEG stream without its application segments is still one that dcmtk reads."""
    ended = subprocess.run(
        ["dcmdjpeg", real_data.cxr[number], tmp_path / "plain.dcm"], capture_output=True, timeout=60, check=False
    )

    assert ended.returncode == 0
    assert (tmp_path / "plain.dcm").stat().st_size > real_data.cxr[number].stat().st_size
