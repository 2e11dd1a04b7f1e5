"""A host that only receives needs neither torch nor torchvision."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.gateway_process import GatewayProcess, storescu
from tests.services.process import run
from tests.studies import REPOSITORY, RealData

pytestmark = [pytest.mark.acceptance]


def test_receiving_works_in_an_environment_without_torch(tmp_path: Path, real_data: RealData) -> None:
    """The package installs, imports and receives without the extra `inference`; `work` says what it lacks."""
    python = _environment_without_torch(tmp_path / "venv")
    gateway = GatewayProcess(tmp_path / "gateway", roles="receive")
    gateway.program.argv[0] = str(python)

    try:
        gateway.start()
        sent = storescu(gateway.address, real_data.cxr)
        gateway.stop()
    finally:
        gateway.kill()
    work = subprocess.run(
        [python, "-m", "gateway", "serve", "--only", "work"],
        env={**os.environ, **gateway.env},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

    assert sent.returncode == 0, sent.stdout
    assert len(gateway.stored_files()) == 3
    assert work.returncode == 2
    assert "torch" in work.stderr


def _environment_without_torch(folder: Path) -> Path:
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or "uv"
    constraints = str(REPOSITORY / "constraints.txt")
    run(uv, "venv", "--quiet", "--python", sys.executable, str(folder))
    python = folder / "bin" / "python"
    run(uv, "pip", "install", "--quiet", "--python", str(python), "-c", constraints, "-e", str(REPOSITORY))
    installed = run(uv, "pip", "list", "--python", str(python))
    assert "torch" not in installed
    return python
