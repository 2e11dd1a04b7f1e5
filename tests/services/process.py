"""Programs that the tests start: ports for them, waiting for them, and ending every one of them by its own id."""

import contextlib
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

LOOPBACK = "127.0.0.1"
HANGS_S = 240.0
"""Seconds after which what is awaited counts as hanging: no measure of what is fast enough, as computers are busy."""
_POLL_S = 0.1
_LOG_TAIL_CHARACTERS = 3000
_FIRST_PORT = 20000
_WORKERS = 4
_PORTS_OF_A_WORKER = 3000
_handed_out: set[int] = set()


@dataclass(frozen=True)
class Place:
    """Where a program runs: in this process's own network, or on a host of its own (`tests/services/network.py`)."""

    address: str = LOOPBACK
    """Where it listens."""
    prefix: tuple[str, ...] = ()
    """What its command line begins with."""


HERE = Place()


class ServiceMissingError(RuntimeError):
    """A service or program that the tests need is neither running, nor installed, nor available as a container."""


class ServiceFailedError(RuntimeError):
    """A program that the tests started ended or did not answer in time; the message ends with its last output."""


def free_port() -> int:
    """Return a TCP port of the loopback interface that nothing listens on, never the same one twice.

    The port lies below the range that the kernel takes for outgoing connections, so that none of these takes it
    before the program that it is for; each process of a parallel run has ports of its own.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
    first = _FIRST_PORT + int(worker) % _WORKERS * _PORTS_OF_A_WORKER
    while True:
        port = random.randrange(first, first + _PORTS_OF_A_WORKER)
        if port in _handed_out:
            continue
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((LOOPBACK, port))
            _handed_out.add(port)
            return port


def listens(port: int, timeout_s: float = 1.0, address: str = LOOPBACK) -> bool:
    """Return whether something accepts TCP connections on a port."""
    with contextlib.suppress(OSError), socket.create_connection((address, port), timeout=timeout_s):
        return True
    return False


def wait_until(is_so: Callable[[], bool], timeout_s: float, what: str) -> None:
    """Poll a condition until it holds.

    Parameters
    ----------
    is_so
        The condition.
    timeout_s
        How long to wait, in seconds.
    what
        What is awaited, for the error message.

    Raises
    ------
    TimeoutError
        If the condition does not hold in time.
    """
    deadline = time.monotonic() + timeout_s
    while not is_so():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {timeout_s:.0f} s")
        time.sleep(_POLL_S)


def run(*argv: str, env: Mapping[str, str] | None = None, cwd: Path | None = None, timeout_s: float = 300) -> str:
    """Run a program to its end and return its standard output.

    Parameters
    ----------
    argv
        The program and its arguments.
    env
        Variables added to the environment of the test run.
    cwd
        Folder that it runs in.
    timeout_s
        How long it may take, in seconds.

    Raises
    ------
    ServiceFailedError
        If it exits with another status than 0; the message ends with what it printed.
    """
    whole_env = {**os.environ, **(env or {})}
    ended = subprocess.run(argv, capture_output=True, text=True, env=whole_env, cwd=cwd, timeout=timeout_s, check=False)
    if ended.returncode != 0:
        printed = (ended.stdout + ended.stderr)[-_LOG_TAIL_CHARACTERS:]
        raise ServiceFailedError(f"{Path(argv[0]).name} {' '.join(argv[1:3])}: exit {ended.returncode}\n{printed}")
    return ended.stdout


class Program:
    """A program in a process group of its own, so that it ends with all its children and nothing else does.

    Parameters
    ----------
    argv
        The program and its arguments.
    log
        File that its output is appended to.
    env
        Variables added to the environment of the test run.
    cwd
        Folder that it runs in.
    """

    def __init__(
        self, argv: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> None:
        self.argv = list(argv)
        self.log = log
        self._env = {**os.environ, **(env or {})}
        self._cwd = cwd
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id, which is the id of the process group too."""
        if self._process is None:
            raise ServiceFailedError(f"{self.argv[0]} is not started")
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the started process has not ended."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the program; its output goes to the log file."""
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self._env,
                cwd=self._cwd,
                start_new_session=True,
            )

    def wait_ready(self, is_ready: Callable[[], bool], timeout_s: float) -> None:
        """Wait until the program answers.

        Raises
        ------
        ServiceFailedError
            If it ends or does not answer in time.
        """
        deadline = time.monotonic() + timeout_s
        while not is_ready():
            if not self.is_running or time.monotonic() > deadline:
                state = "did not answer in time" if self.is_running else "ended while starting"
                raise ServiceFailedError(f"{self.argv[0]} {state}:\n{self.log_tail()}")
            time.sleep(_POLL_S)

    def log_tail(self) -> str:
        """Return the last of the program's output."""
        return self.log.read_text(errors="replace")[-_LOG_TAIL_CHARACTERS:] if self.log.exists() else ""

    def stop(self, timeout_s: float = 60) -> int | None:
        """Ask the whole group to end, insist after a time, and return the exit status of the program."""
        return self._end(signal.SIGTERM, timeout_s)

    def kill(self) -> int | None:
        """End the whole group at once, with no chance to tidy up."""
        return self._end(signal.SIGKILL, timeout_s=60)

    def _end(self, how: signal.Signals, timeout_s: float) -> int | None:
        process, self._process = self._process, None
        if process is None:
            return None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, how)
        try:
            wait_until(lambda: _has_ended(process), timeout_s, "end of " + self.argv[0])
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            wait_until(lambda: _has_ended(process), timeout_s, "end of " + self.argv[0])
        return process.wait()


def _has_ended(leader: "subprocess.Popen[bytes]") -> bool:
    """Return whether neither the leader nor any other live process of its group is left."""
    return leader.poll() is not None and not _group_members(leader.pid)


def _group_members(group: int) -> list[int]:
    members = []
    for process in psutil.process_iter(["pid", "status"]):
        with contextlib.suppress(ProcessLookupError):
            if os.getpgid(process.pid) == group and process.info["status"] != psutil.STATUS_ZOMBIE:
                members.append(process.pid)
    return members
