"""The R4 validators that run on node: installed once into `tests/node/node_modules`, then used from there.

By hand: `cd tests/node && npm install --no-package-lock`.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.services.process import HANGS_S

FOLDER = Path(__file__).resolve().parents[2] / "node"
_STAMP = FOLDER / "node_modules" / ".installed"
_INSTALL_TIMEOUT_S = 300


class MissingNodeError(RuntimeError):
    """Node or its packages are not installed."""


def complaints(resources: Sequence[dict[str, Any]], scratch: Path) -> list[str]:
    """Return what the validators complain about, empty when all is well."""
    found: list[str] = _run("validate.mjs", resources, scratch)
    return found


def complaints_of_r5(resources: Sequence[dict[str, Any]], scratch: Path) -> list[str]:
    """Return what the types of R5 complain about, empty when all is well."""
    found: list[str] = _run("validate_r5.mjs", resources, scratch)
    return found


def convert(documents: Sequence[dict[str, Any]], scratch: Path) -> list[dict[str, Any]]:
    """Return for each `json` and `xml` the JSON that another library reads from the XML, and the XML it writes."""
    made: list[dict[str, Any]] = _run("xml.mjs", documents, scratch)
    return made


def _run(script: str, content: Sequence[dict[str, Any]], scratch: Path) -> Any:
    install()
    file = scratch / "resources.json"
    file.write_text(json.dumps(content), encoding="utf-8")
    command = [_program("node"), script, str(file)]
    done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, timeout=HANGS_S, check=False)
    if done.returncode:
        raise RuntimeError(f"{script} failed: {done.stderr[-500:]}")
    return json.loads(done.stdout)


def install() -> None:
    """Install the packages unless those of this `package.json` are there; of two test runs at once, one waits."""
    wanted = hashlib.sha256((FOLDER / "package.json").read_bytes()).hexdigest()
    _STAMP.parent.mkdir(exist_ok=True)
    with (_STAMP.parent / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _STAMP.exists() and _STAMP.read_text(encoding="ascii") == wanted:
            return
        command = [_program("npm"), "install", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts"]
        done = subprocess.run(
            command, cwd=FOLDER, capture_output=True, text=True, timeout=_INSTALL_TIMEOUT_S, check=False
        )
        if done.returncode:
            raise MissingNodeError(f"npm could not install the FHIR validators: {done.stderr[-500:]}")
        _STAMP.write_text(wanted, encoding="ascii")


def _program(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise MissingNodeError(f"{name} is missing (apt: nodejs npm): the FHIR resources cannot be checked without it")
    return path
