"""The supervisor with real processes: restart, misconfiguration, drain, and its own death."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.services.process import HANGS_S, wait_until

ROLE = """
import os, pathlib, sys, threading
from gateway.supervisor import run_role

class Role:
    name = sys.argv[1]
    def run(self, stop):
        pathlib.Path(f"{self.name}.{os.getpid()}").touch()
        if self.name == "dies":
            sys.exit(1)
        stop.wait()
        pathlib.Path(f"{self.name}.{os.getpid()}").rename(f"{self.name}.{os.getpid()}.drained")

if sys.argv[1] == "misconfigured":
    sys.exit(2)
run_role(Role())
"""
SUPERVISOR = """
import sys
from gateway.supervisor import Supervisor
sys.exit(Supervisor(sys.argv[2:], [sys.executable, sys.argv[1]]).run())
"""


class Running:
    """A supervisor of little roles, in a folder where they leave their marks."""

    def __init__(self, folder: Path, *roles: str) -> None:
        self.folder = folder
        role = folder / "role.py"
        role.write_text(ROLE)
        self.process = subprocess.Popen([sys.executable, "-c", SUPERVISOR, str(role), *roles], cwd=folder)

    def pids(self, role: str) -> list[int]:
        """Return the ids of the processes that ran a role, the ones that drained left out."""
        return [int(mark.suffix[1:]) for mark in self.folder.glob(f"{role}.*") if mark.suffix[1:].isdigit()]

    def drained(self, role: str) -> bool:
        """Say whether a process of this role ended in good order."""
        return bool(list(self.folder.glob(f"{role}.*.drained")))


@pytest.fixture
def started(tmp_path: Path) -> Iterator[list[Running]]:
    """Collect supervisors, ended by id after the test."""
    running: list[Running] = []
    yield running
    for each in running:
        each.process.kill()
        each.process.wait()


def test_a_killed_role_is_started_again(tmp_path: Path, started: list[Running]) -> None:
    """A role that is killed comes back in another process; the others stay."""
    started.append(running := Running(tmp_path, "one", "two"))
    wait_until(lambda: bool(running.pids("one") and running.pids("two")), HANGS_S, "both roles")
    first = running.pids("one")[0]

    os.kill(first, signal.SIGKILL)
    wait_until(lambda: len(running.pids("one")) == 2, HANGS_S, "the role again")

    assert len(running.pids("two")) == 1


def test_a_role_that_keeps_dying_is_restarted_with_back_off(tmp_path: Path, started: list[Running]) -> None:
    """Restarts come, and come more slowly."""
    started.append(running := Running(tmp_path, "dies"))
    wait_until(lambda: len(running.pids("dies")) >= 4, HANGS_S, "four tries")

    began = sorted(mark.stat().st_mtime for mark in tmp_path.glob("dies.*"))
    assert began[3] - began[2] > 1.5  # and the third came a second after the second at the earliest
    assert running.process.poll() is None


def test_a_misconfigured_role_ends_all_with_the_same_exit_code(tmp_path: Path, started: list[Running]) -> None:
    """Exit code 2 says that no restart helps: the others are drained and the supervisor ends with 2."""
    started.append(running := Running(tmp_path, "one", "misconfigured"))

    assert running.process.wait(HANGS_S) == 2
    assert not running.pids("one")


def test_sigterm_drains_all_roles(tmp_path: Path, started: list[Running]) -> None:
    """Each role ends in good order, and the supervisor with exit code 0."""
    started.append(running := Running(tmp_path, "one", "two"))
    wait_until(lambda: bool(running.pids("one") and running.pids("two")), HANGS_S, "both roles")

    running.process.terminate()

    assert running.process.wait(HANGS_S) == 0
    assert running.drained("one")
    assert running.drained("two")


def test_roles_drain_when_their_supervisor_is_killed(tmp_path: Path, started: list[Running]) -> None:
    """After SIGKILL of the supervisor no role is left without anyone to restart it."""
    started.append(running := Running(tmp_path, "one"))
    wait_until(lambda: bool(running.pids("one")), HANGS_S, "the role")
    pid = running.pids("one")[0]

    running.process.kill()
    running.process.wait()

    wait_until(lambda: running.drained("one"), HANGS_S, "the end of the role")
    wait_until(lambda: not psutil.pid_exists(pid), HANGS_S, "its process gone")
