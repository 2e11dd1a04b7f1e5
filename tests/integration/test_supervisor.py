"""The supervisor with real processes: restart, silence, misconfiguration, drain, its own death, and systemd."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.services.process import HANGS_S, wait_until

ROLE = """
import ctypes, os, pathlib, sys, threading
from gateway.supervisor import run_role

class Role:
    name = sys.argv[1]
    def run(self, stop):
        pathlib.Path(f"{self.name}.{os.getpid()}").touch()
        if self.name == "dies":
            sys.exit(1)
        if self.name == "sticks" and len(list(pathlib.Path().glob("sticks.*"))) == 1:
            ctypes.PyDLL(None).pause()
        stop.wait()
        pathlib.Path(f"{self.name}.{os.getpid()}").rename(f"{self.name}.{os.getpid()}.drained")

if sys.argv[1] == "misconfigured":
    sys.exit(2)
run_role(Role())
"""
SUPERVISOR = """
import sys
from gateway.supervisor import Supervisor
sys.exit(Supervisor(sys.argv[3:], [sys.executable, sys.argv[1]], float(sys.argv[2])).run())
"""


class Running:
    """A supervisor of little roles, in a folder where they leave their marks."""

    def __init__(self, folder: Path, *roles: str, silence_s: float = 60, **env: str) -> None:
        self.folder = folder
        role = folder / "role.py"
        role.write_text(ROLE)
        argv = [sys.executable, "-c", SUPERVISOR, str(role), str(silence_s), *roles]
        self.process = subprocess.Popen(argv, cwd=folder, env={**os.environ, **env})

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


def test_a_role_that_is_stopped_for_good_is_replaced(tmp_path: Path, started: list[Running]) -> None:
    """Nobody wakes it: it gives no sign of life, is killed by its id and started again; the others stay."""
    started.append(running := Running(tmp_path, "one", "two", silence_s=8))
    wait_until(lambda: bool(running.pids("one") and running.pids("two")), HANGS_S, "both roles")
    first = running.pids("one")[0]

    os.kill(first, signal.SIGSTOP)
    wait_until(lambda: len(running.pids("one")) == 2, HANGS_S, "the role again")

    assert not psutil.pid_exists(first)
    assert len(running.pids("two")) == 1


def test_a_role_in_which_nobody_gets_a_turn_is_replaced(tmp_path: Path, started: list[Running]) -> None:
    """It holds the interpreter's lock for ever: its own threads could not notice."""
    started.append(running := Running(tmp_path, "sticks", silence_s=8))

    wait_until(lambda: len(running.pids("sticks")) == 2, HANGS_S, "the role again")


def test_systemd_hears_of_the_supervisor_and_of_a_role_by_itself(tmp_path: Path, started: list[Running]) -> None:
    """Ready, then signs of life, from whichever systemd started; a supervisor's roles do not speak for it."""
    with _systemd(tmp_path / "notify") as heard:
        started.append(running := Running(tmp_path, "one", NOTIFY_SOCKET=str(tmp_path / "notify")))
        of_supervisor = [heard.recv(64) for _ in range(3)]
        wait_until(lambda: bool(running.pids("one")), HANGS_S, "the role")
        environment = psutil.Process(running.pids("one")[0]).environ()
    with _systemd(tmp_path / "other") as heard:
        env = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "other")}
        alone = subprocess.Popen([sys.executable, "role.py", "alone"], cwd=tmp_path, env=env)
        of_role = [heard.recv(64) for _ in range(3)]
        alone.terminate()

    assert of_supervisor == of_role == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1"]
    assert "NOTIFY_SOCKET" not in environment
    assert alone.wait(HANGS_S) == 0


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


@contextlib.contextmanager
def _systemd(address: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(address))
        listening.settimeout(HANGS_S)
        yield listening
