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
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

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


def _hadolint(path: Path) -> str:
    command = [PROGRAMS / "hadolint", "--no-color", "--config", DEPLOY.parent / ".hadolint.yaml", path]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout


def _make_secrets(folder: Path) -> None:
    subprocess.run(["sh", DEPLOY / "compose" / "secrets.sh", folder], check=True, timeout=60)


def _mounted(service: dict[str, Any]) -> Iterator[str]:
    for volume in service.get("volumes", ()):
        source = volume.partition(":")[0]
        if source.startswith("."):
            yield source
