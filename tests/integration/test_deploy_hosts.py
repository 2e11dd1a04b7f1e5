"""Hosts without containers: the units are sound and closed, and the script that installs them may run twice."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from gateway.supervisor import ROLES
from tests.deployment import DEPLOY
from tests.services.process import HANGS_S

UNITS = Path("etc/systemd/system")
needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not there")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a root into which everything but the packages was installed."""
    root = tmp_path_factory.mktemp("root")
    assert install(root).returncode == 0
    program = root / "opt/hybridmed/bin/hybridmed"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    return root


def test_installing_twice_changes_nothing(installed: Path) -> None:
    """The second run says so; settings that were edited stay, a unit that was edited is put right."""
    settings, unit = installed / "etc/hybridmed/hybridmed.toml", installed / UNITS / "hybridmed@.service"
    again = install(installed)
    settings.write_text(settings.read_text() + "# ours\n")
    unit.write_text("")
    repaired = install(installed)

    assert again.stdout == "unchanged\n"
    assert repaired.stdout == "changed: /etc/systemd/system/hybridmed@.service\n"
    assert settings.read_text().endswith("# ours\n")
    assert 'data_dir = "/var/lib/hybridmed"' in settings.read_text()


def test_all_roles_start_unless_some_are_named(installed: Path, tmp_path: Path) -> None:
    """A host that only receives gets one role; a role that does not exist is refused."""
    install(tmp_path, "receive")
    wanted = {link.name for link in (installed / UNITS / "hybridmed.target.wants").iterdir()}

    assert wanted == {f"hybridmed@{role}.service" for role in ROLES}
    assert [link.name for link in (tmp_path / UNITS / "hybridmed.target.wants").iterdir()] == [
        "hybridmed@receive.service"
    ]
    assert install(tmp_path, "radiate").returncode == 2


def test_the_command_line_has_the_settings_of_the_units(installed: Path, tmp_path: Path) -> None:
    """What an operator types reads the same settings, secrets and data as the roles that run."""
    program = tmp_path / "hybridmed"
    program.write_text("#!/bin/sh\nenv\necho ARGUMENTS=$*\n")
    program.chmod(0o755)
    script = (installed / "usr/local/bin/hybridmed").read_text()
    moved = script.replace("/opt/hybridmed/bin/hybridmed", str(program)).replace("= hybridmed ]", '= "$(id -un)" ]')
    unit = (DEPLOY / "systemd/hybridmed@.service").read_text()

    ended = subprocess.run(
        ["sh", "-c", moved, "hybridmed", "dead", "list"],
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=HANGS_S,
        check=False,
    )

    told = set(ended.stdout.splitlines())
    of_unit = set(re.findall(r"HYBRIDMED_(?:CONFIG|DATA_DIR|SECRETS_DIR)=\S+", unit))
    assert len(of_unit) == 3
    assert of_unit <= told, ended.stderr
    assert "ARGUMENTS=dead list" in told


@needs_systemd
@pytest.mark.parametrize("role", ROLES)
def test_systemd_understands_the_units(installed: Path, role: str) -> None:
    """`verify` has nothing to say of our files; a misspelt setting is named."""
    for target in ("sysinit", "basic", "shutdown", "network-online", "multi-user"):
        (installed / UNITS / f"{target}.target").write_text(f"[Unit]\nDescription={target}\n")
    careless = installed / UNITS / "careless.service"
    careless.write_text("[Service]\nExecStart=/opt/hybridmed/bin/hybridmed\nProtectSystems=yes\n")

    assert analyse(installed, "verify", f"hybridmed@{role}.service") == ""
    assert "ProtectSystems" in analyse(installed, "verify", "careless.service")


@needs_systemd
@pytest.mark.parametrize("role", ROLES)
def test_units_are_closed(installed: Path, role: str) -> None:
    """Systemd's own measure of exposure, 0 to 10, stays under 3; a bare service has 9.6."""
    found = analyse(installed, "security", "--offline=true", "--json=short", f"hybridmed@{role}.service")
    rows = json.loads(found[found.index("[") :])
    exposure = sum(float(row["exposure"] or 0) for row in rows)
    names = {row["json_field"]: row["set"] for row in rows}

    assert names["NoNewPrivileges"] is True
    assert names["ProtectSystem"] is True
    assert exposure < 3


def install(root: Path, *roles: str) -> subprocess.CompletedProcess[str]:
    """Run the script for a root of the test's."""
    command = ["sh", DEPLOY / "install.sh", "--root", root, "--no-packages", *roles]
    return subprocess.run(command, capture_output=True, text=True, timeout=HANGS_S, check=False)


def analyse(root: Path, *arguments: str) -> str:
    """Run systemd-analyze over a root and return all that it says."""
    command = ["systemd-analyze", f"--root={root}", *arguments]
    env = {**os.environ, "SYSTEMD_LOG_LEVEL": "notice"}
    ended = subprocess.run(command, capture_output=True, text=True, timeout=HANGS_S, check=False, env=env)
    return ended.stdout + ended.stderr
