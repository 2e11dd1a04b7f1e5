"""Images and compose file: checked by hadolint and the schema of compose, and against the program itself."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.check.containerfile import read_stages
from gateway.cli.running import _roles
from gateway.config import load_settings
from gateway.supervisor import ROLES
from tests.deployment import DEPLOY, read_yaml
from tests.services.process import HANGS_S

CONTAINERFILE = DEPLOY / "containers" / "Containerfile"
COMPOSE = DEPLOY / "compose" / "compose.yaml"
PROGRAMS = Path(sys.executable).parent


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    """Give the services of the compose file."""
    found: dict[str, Any] = read_yaml(COMPOSE)["services"]
    return found


def test_hadolint_has_nothing_against_the_images(tmp_path: Path) -> None:
    """The linter is silent about ours, and not about a root user and an untagged base."""
    careless = tmp_path / "Containerfile"
    careless.write_text("FROM debian:latest\nRUN cd /tmp && sudo true\n")

    complaints = [_hadolint(path) for path in (CONTAINERFILE, careless)]

    assert complaints[0] == ""
    assert "DL3007" in complaints[1]


@pytest.mark.parametrize("target", ["gateway", "worker"])
def test_an_image_runs_without_root_and_tells_its_health(target: str) -> None:
    """User and health check stand in the stage or the one below; the command is one that `hybridmed` takes."""
    stages = read_stages(CONTAINERFILE)
    user, command = stages[target].last("USER"), stages[target].last("CMD")
    health = stages[stages[target].base].last("HEALTHCHECK")

    assert user is not None and user.rest == "10001:10001"
    assert health is not None and '"hybridmed", "health"' in health.rest
    assert command is not None
    assert set(_roles(command.words[2])) == ({"work"} if target == "worker" else {*ROLES} - {"work"})


@pytest.mark.parametrize(("target", "stages"), [("worker", ["build"]), ("gateway", ["build", "build-gateway"])])
def test_what_is_left_out_of_an_image_is_not_missed(target: str, stages: list[str]) -> None:
    """Every module that the image's roles load comes without what its stages remove; the worker's model answers."""
    removed = [name for stage in stages for name in _removed(stage)]
    assert removed
    lacks = removed if target == "worker" else [*removed, "torch", "scipy", "monai"]

    ended = subprocess.run(
        [sys.executable, "-c", _LOAD.format(lacks=lacks) + _USE[target]],
        capture_output=True,
        text=True,
        timeout=HANGS_S,
        check=False,
    )

    assert ended.returncode == 0, ended.stderr[-2000:]
    assert "used" in ended.stdout


def test_bases_are_exact(services: dict[str, Any]) -> None:
    """Every image of others has a full version as its tag; no stage but the first comes from outside."""
    stages = read_stages(CONTAINERFILE)
    foreign = {stage.base for stage in stages.values()} - set(stages)
    images = foreign | {service["image"] for service in services.values() if "build" not in service}

    assert all(any(character.isdigit() for character in image.partition(":")[2]) for image in images), images
    assert all("latest" not in image for image in images)


def test_what_is_copied_into_the_images_is_there_and_let_through() -> None:
    """Sources of COPY exist; the ignore file, which shuts out all, opens each of them, and no secret or data folder."""
    copied = [
        word
        for stage in read_stages(CONTAINERFILE).values()
        for instruction in stage.instructions
        if instruction.name == "COPY" and "--from" not in instruction.rest
        for word in instruction.words[:-1]
    ]
    opened = [line[1:] for line in (DEPLOY.parent / ".dockerignore").read_text().splitlines() if line.startswith("!")]

    assert copied and all((DEPLOY.parent / source).exists() for source in copied)
    assert sorted(copied) == sorted(opened)


def test_compose_follows_its_schema() -> None:
    """The schema of the compose specification takes the file."""
    command = [PROGRAMS / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", COMPOSE]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=HANGS_S, check=False)

    assert ended.returncode == 0, ended.stdout


def test_compose_runs_every_role_hardened(services: dict[str, Any]) -> None:
    """All roles, each with a health check of its own; nothing writes to its root, gains rights or keeps any."""
    ours = [service for service in services.values() if "--only" in service.get("command", ())]
    commands = {service["command"][2]: service for service in ours}

    assert set(commands) == set(ROLES)
    for role, service in commands.items():
        assert service["healthcheck"]["test"] == ["CMD", "hybridmed", "health", role]
        assert service["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name


def test_compose_mounts_what_is_there(services: dict[str, Any], tmp_path: Path) -> None:
    """Files that are mounted exist, or are made by the script of the secrets."""
    _make_secrets(tmp_path)
    named = {path for service in services.values() for path in _mounted(service)}
    named |= {secret["file"] for secret in read_yaml(COMPOSE)["secrets"].values()}
    missing = [
        path
        for path in named
        if not (COMPOSE.parent / path).exists()
        and not (path.startswith("./secrets/") and (tmp_path / Path(path).name).exists())
    ]

    assert named
    assert missing == []


def test_secrets_are_read_from_files_and_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program reads what the script made; a second run of the script changes nothing."""
    _make_secrets(tmp_path)
    monkeypatch.setenv("HYBRIDMED_SECRETS_DIR", str(tmp_path))
    monkeypatch.setenv("HYBRIDMED_CONFIG", str(tmp_path / "none.toml"))
    before = {path.name: path.read_text() for path in tmp_path.iterdir()}
    told = read_yaml(COMPOSE)["services"]["web"]["environment"].items()
    given = {name: value for name, value in told if "$" not in value}
    for name, value in given.items():
        monkeypatch.setenv(name, value.replace("/run/secrets", str(tmp_path)))
    settings = load_settings(bind="0.0.0.0", allowed_aes=("CT1",))  # noqa: S104 # as in the image
    _make_secrets(tmp_path)

    assert settings.sqlalchemy_url.startswith("postgresql://hybridmed:")
    assert len(settings.tokens[0]) == 64
    assert before["token"] not in repr(settings)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == before


def _removed(stage: str) -> Iterator[str]:
    """Yield the modules, as patterns, that a stage takes out of site-packages."""
    for instruction in read_stages(CONTAINERFILE)[stage].instructions:
        _, _, paths = instruction.rest.partition("rm -rf ")
        if instruction.name == "RUN" and paths:
            names = (word for word in paths.partition("&&")[0].split() if not word.startswith("/"))
            yield from (name.replace("/", ".") for name in names if "__pycache__" not in name)


_LOAD = """
import fnmatch, importlib, pkgutil, sys
LACKS = {lacks!r}

class Lacking:
    def find_spec(self, name, path=None, target=None):
        if any(fnmatch.fnmatchcase(name, each) or name.startswith(each + ".") for each in LACKS):
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Lacking())
"""
_USE = {
    "worker": """
from pathlib import Path
import gateway.wiring.work
from inference.bundle import default_bundle_dir, load_bundle
from inference.predict import Predictor
from inference.predict_volume import VolumePredictor
model = Predictor(load_bundle(default_bundle_dir() / "cxr-pneumonia"), "cpu")
assert model.run(model.prepare([[Path(gateway.__file__).parent / "samples" / "cxr-viral.dcm"]]))[0].findings
VolumePredictor(load_bundle(default_bundle_dir() / "ct-lung"), "cpu")
print("used")
""",
    "gateway": """
import fhir_facade, gateway
OF_WORKER = ("gateway.wiring.models", "gateway.wiring.work")
for root in (gateway, fhir_facade):
    for module in pkgutil.walk_packages(root.__path__, root.__name__ + "."):
        if not module.name.endswith("__main__") and module.name not in OF_WORKER:
            importlib.import_module(module.name)
print("used")
""",
}


def _hadolint(path: Path) -> str:
    command = [PROGRAMS / "hadolint", "--no-color", "--config", DEPLOY.parent / ".hadolint.yaml", path]
    return subprocess.run(command, capture_output=True, text=True, timeout=HANGS_S, check=False).stdout


def _make_secrets(folder: Path) -> None:
    subprocess.run(["sh", DEPLOY / "compose" / "secrets.sh", folder], check=True, timeout=HANGS_S)


def _mounted(service: dict[str, Any]) -> Iterator[str]:
    for volume in service.get("volumes", ()):
        source = volume.partition(":")[0]
        if source.startswith("."):
            yield source
