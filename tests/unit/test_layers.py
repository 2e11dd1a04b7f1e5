"""Dependencies run one way, and a host that only receives needs no torch."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fhir import resources

from tests.services.process import HANGS_S

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGES = {
    "gateway": REPOSITORY / "gateway",
    "inference": REPOSITORY / "inference",
    "fhir_facade": REPOSITORY / "fhir",
}

# What any module of the gateway may know of inference.
OPEN_TO_GATEWAY = {"inference.findings", "inference.errors"}
# The parts of the gateway that may know more: the place where the real parts are built, the worker, which runs the
# models, and the commands that train and inspect them.
KNOWS_MODELS = ("gateway/wiring", "gateway/worker", "gateway/cli/bundles.py")
# The parts of the gateway that may look at torch: the worker, and doctor, which names a pair that does not match.
KNOWS_TORCH = ("gateway/worker", "gateway/doctor.py")
INFERENCE_EXTRA = ("torch", "torchvision", "monai", "safetensors")

IMPORT_WITHOUT_THE_EXTRA = """
import importlib, pkgutil, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent!r}:
            raise ModuleNotFoundError("not installed: " + name, name=name)

sys.meta_path.insert(0, Absent())
for root in ("gateway", "fhir_facade"):
    package = importlib.import_module(root)
    for module in pkgutil.walk_packages(package.__path__, root + "."):
        if module.name not in {"gateway.wiring.work", "gateway.wiring.models", "gateway.__main__"}:
            importlib.import_module(module.name)
print(len([name for name in sys.modules if name.startswith("gateway.")]))
"""


def test_inference_knows_nobody() -> None:
    """No module of inference imports the gateway or the FHIR facade, not even inside a function."""
    strangers = list(_imports_of("inference", ("gateway", "fhir_facade")))

    assert strangers == []


def test_gateway_knows_the_findings_of_inference_and_no_more() -> None:
    """Outside the worker, the wiring and the model commands, only `inference.findings` and its errors are imported."""
    strangers = [
        (path, name)
        for path, name in _imports_of("gateway", ("inference",))
        if name not in OPEN_TO_GATEWAY and not path.startswith(KNOWS_MODELS)
    ]

    assert strangers == []


def test_fhir_facade_knows_no_models() -> None:
    """The FHIR facade imports nothing of inference but findings and errors, and no torch."""
    strangers = [
        found
        for found in _imports_of("fhir_facade", ("inference", *INFERENCE_EXTRA))
        if found[1] not in OPEN_TO_GATEWAY
    ]

    assert strangers == []


def test_gateway_names_no_torch() -> None:
    """No module of the gateway imports torch and its kin, except the worker and doctor."""
    strangers = [found for found in _imports_of("gateway", INFERENCE_EXTRA) if not found[0].startswith(KNOWS_TORCH)]

    assert strangers == []


def test_everything_but_the_worker_imports_without_the_inference_extra() -> None:
    """Where torch is not installed, every module of gateway and facade imports, the worker's own excepted."""
    script = IMPORT_WITHOUT_THE_EXTRA.replace("{absent!r}", repr(INFERENCE_EXTRA))
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=HANGS_S, check=False)

    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) > 0


@pytest.mark.parametrize("module", ["gateway", "gateway.cli", "gateway.association", "fhir_facade"])
def test_importing_loads_no_torch(module: str) -> None:
    """Where torch is installed, importing the parts of a receive-only host leaves it unloaded."""
    script = f"import sys, {module}; print([name for name in {INFERENCE_EXTRA!r} if name in sys.modules])"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=HANGS_S, check=False)

    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip() == "[]"


def test_the_fhir_folder_is_no_package() -> None:
    """`fhir/__init__.py` would hide the library that owns the import name `fhir`."""
    assert not (REPOSITORY / "fhir" / "__init__.py").exists()
    assert Path(resources.__file__).parent.parent != REPOSITORY / "fhir"


def _imports_of(package: str, roots: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Yield (file, imported module) for every import of these top-level packages, wherever in the file it stands."""
    for path in sorted(PACKAGES[package].rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for name in _imported(node):
                if name.partition(".")[0] in roots:
                    yield path.relative_to(REPOSITORY).as_posix(), name


def _imported(node: ast.AST) -> list[str]:
    """Return the modules that a statement imports; `from package import module` counts as `package.module`."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        is_package = (REPOSITORY / node.module.replace(".", "/")).is_dir()
        return [f"{node.module}.{alias.name}" for alias in node.names] if is_package else [node.module]
    return []
