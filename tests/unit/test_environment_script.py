"""The script that makes the environment picks a Python that is recent enough, or says what to do."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.services.process import HANGS_S

SCRIPT = Path(__file__).resolve().parents[2] / "deploy" / "dev" / "environment.sh"
BASH = shutil.which("bash") or "bash"


def test_takes_the_first_recent_python(tmp_path: Path) -> None:
    """An old `python3` is passed over for a recent interpreter of another name."""
    _interpreter(tmp_path / "python3", is_recent=False)
    _interpreter(tmp_path / "python3.12", is_recent=True)
    _interpreter(tmp_path / "python3.13", is_recent=True)

    assert _choose(tmp_path).stdout.strip() == str(tmp_path / "python3.12")


def test_says_what_to_install_when_no_python_is_recent(tmp_path: Path) -> None:
    """With nothing but an old Python the script fails with a sentence that names the remedy."""
    _interpreter(tmp_path / "python3", is_recent=False)
    ended = _choose(tmp_path)

    assert ended.returncode == 1
    assert "Python 3.11 or later is needed" in ended.stderr
    assert "apt-get install" in ended.stderr


@pytest.mark.parametrize(("is_recent", "status"), [(True, 0), (False, 1)])
def test_a_named_python_is_taken_or_refused(tmp_path: Path, is_recent: bool, status: int) -> None:
    """PYTHON decides alone: it is taken before any other, and never silently replaced when it is too old."""
    named = tmp_path / "elsewhere"
    _interpreter(named, is_recent=is_recent)
    _interpreter(tmp_path / "python3", is_recent=True)
    ended = _choose(tmp_path, PYTHON=str(named))

    assert ended.returncode == status
    assert str(named) in ended.stdout + ended.stderr


def test_an_unknown_wish_is_refused(tmp_path: Path) -> None:
    """A mistyped argument does not make an environment."""
    ended = subprocess.run([BASH, SCRIPT, "develop"], capture_output=True, text=True, timeout=HANGS_S, check=False)

    assert ended.returncode == 1
    assert "usage" in ended.stderr


def _interpreter(path: Path, *, is_recent: bool) -> None:
    """Write a stand-in that answers the script's question about its version."""
    path.write_text(f"#!/bin/sh\nexit {0 if is_recent else 1}\n")
    path.chmod(0o755)


def _choose(folder: Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Ask the script which Python it takes when only this folder and the basic programs are on the path."""
    (folder / "dirname").symlink_to(shutil.which("dirname") or "/usr/bin/dirname")
    env = {key: value for key, value in os.environ.items() if key != "PYTHON"}
    env.update(PATH=str(folder), **variables)
    return subprocess.run(
        [BASH, SCRIPT, "python"], capture_output=True, text=True, timeout=HANGS_S, env=env, check=False
    )
