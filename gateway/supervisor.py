"""`serve`: roles as processes; one that is dead, or gives no sign of life, is started again; SIGTERM drains all.

Each child holds the read end of a pipe whose write end is the supervisor's alone: when the supervisor dies, even by
SIGKILL, the children read its end and drain too, so that no role is left behind without anyone to restart it. Each
child also holds the write end of a pipe of its own, for its signs of life (`gateway.pulse`). Only time in which the
supervisor itself runs counts as silence: a computer that sleeps or swaps finds its roles as it left them.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import structlog

from gateway import pulse
from gateway.services import DEVICE_LOST, HUNG, Counters, Role

log = structlog.get_logger()

ROLES = ("receive", "dispatch", "work", "deliver", "web")
"""All roles, in the order in which they start."""
LIFELINE = "HYBRIDMED_LIFELINE_FD"
"""Environment variable that names a child's end of the pipe."""
SHARED = "HYBRIDMED_SHARED_FD"
"""Environment variable that names memory which the processes of one role share: 16 random bytes, then what is kept."""
RESTARTS = "HYBRIDMED_RESTARTS"
"""Environment variable that tells a child how often processes of its place ended, and why: `silent=1,hung=2`."""
AFTER = "HYBRIDMED_AFTER_PID"
"""Environment variable that tells a child whose place it takes: a process id, or 0 where there was none."""
SILENCE_S = 60.0
"""Seconds without a sign of life after which a process is killed; ten times as many while it starts."""
_START_FACTOR = 10
_WHY = {HUNG: "hung", DEVICE_LOST: "device_lost"}
_LOOK_S = 0.1
_LONGEST_LOOK_S = 1.0
_SHARING = "web"
_SHARED_BYTES = 4 << 20
_KEY_BYTES = 16
DRAIN_S = 60.0
"""Seconds that roles have to finish what is in hand, after which they are killed: what they held is kept or retried."""
_FIRST_DELAY_S = 0.5
_LONGEST_DELAY_S = 30.0
_STEADY_S = 60.0
_SERVING_S = 20.0
_USAGE = 2


@dataclass(slots=True)
class _Child:
    role: str
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    failures: int = 0
    has_served: bool = False
    """Whether it ever ran for a while: then its settings are good, and nothing that it meets may end the others."""
    pulse: int = -1
    """The read end of its pipe, while it runs."""
    silent_s: float = 0.0
    is_up: bool = False
    """Whether it has given a sign of life."""
    was_silent: bool = False
    """Whether it was killed for its silence."""
    ends: Counter[str] = field(default_factory=Counter)
    """How often it ended, by reason."""
    ended_pid: int = 0
    start_at: float = field(default_factory=time.monotonic)


class Supervisor:
    """Runs roles as processes until told to stop.

    Parameters
    ----------
    roles
        Names of the roles, a process for each name; one that stands twice runs twice.
    command
        The program of a role without its name, for example `[python, -m, gateway, serve, --only]`.
    silence_s
        After which a process without a sign of life is killed.
    """

    def __init__(self, roles: Sequence[str], command: Sequence[str], silence_s: float = SILENCE_S) -> None:
        self._children = [_Child(role) for role in roles]
        self._command = list(command)
        self._silence_s = silence_s
        self._stop = threading.Event()

    def run(self) -> int:
        """Run until SIGTERM or SIGINT; return the exit code."""
        _set_on_signal(self._stop)
        lifeline, hold = os.pipe()
        shared = {SHARED: _make_shared()} if sum(child.role == _SHARING for child in self._children) else {}
        inherited = {LIFELINE: lifeline, **shared}
        told_at, looked_at = -pulse.EVERY_S, time.monotonic()
        pulse.tell_systemd(pulse.READY)
        try:
            while not self._stop.is_set():
                passed_s, looked_at = time.monotonic() - looked_at, time.monotonic()
                for child in self._children:
                    self._listen(child, min(passed_s, _LONGEST_LOOK_S))
                    if not self._tend(child, inherited):
                        return _USAGE
                if looked_at - told_at >= pulse.EVERY_S:
                    told_at = looked_at
                    pulse.tell_systemd(pulse.ALIVE)
                self._stop.wait(_LOOK_S)
            return 0
        finally:
            self._drain()
            for descriptor in (hold, *inherited.values()):
                os.close(descriptor)

    def _tend(self, child: _Child, inherited: Mapping[str, int]) -> bool:
        """Start a role that is due, note one that ended; False where its settings are wrong and no restart can help."""
        now = time.monotonic()
        if child.process is None:
            if now >= child.start_at:
                self._start(child, inherited)
            return True
        code = child.process.poll()
        child.has_served |= now - child.started_at > _SERVING_S
        if code is None:
            return True
        child.ended_pid, child.process = child.process.pid, None
        os.close(child.pulse)
        child.ends["silent" if child.was_silent else _WHY.get(code, "ended")] += 1
        if code == _USAGE and not child.has_served:
            log.error("role.misconfigured", of_role=child.role)
            return False
        child.failures = 1 if now - child.started_at > _STEADY_S else child.failures + 1
        delay_s = min(_FIRST_DELAY_S * 2 ** (child.failures - 1), _LONGEST_DELAY_S)
        child.start_at = now + delay_s
        log.warning("role.ended", of_role=child.role, exit_code=code, restart_in_s=delay_s)
        return True

    def _listen(self, child: _Child, passed_s: float) -> None:
        """Take a process's signs of life; kill it where there were none for too long. What follows is a crash's."""
        if child.process is None:
            return
        if pulse.heard(child.pulse):
            child.silent_s, child.is_up = 0.0, True
            return
        child.silent_s += passed_s
        if child.silent_s <= self._silence_s * (1 if child.is_up else _START_FACTOR):
            return
        log.error("role.silent", of_role=child.role, pid=child.process.pid, silent_s=round(child.silent_s, 1))
        child.silent_s, child.was_silent = 0.0, True
        child.process.kill()

    def _start(self, child: _Child, inherited: Mapping[str, int]) -> None:
        inherited = {name: each for name, each in inherited.items() if name != SHARED or child.role == _SHARING}
        child.pulse, theirs = os.pipe()
        os.set_blocking(child.pulse, False)
        inherited = {**inherited, pulse.PIPE: theirs}
        ends = ",".join(f"{why}={count}" for why, count in sorted(child.ends.items()))
        told = {RESTARTS: ends, AFTER: str(child.ended_pid)}
        child.process = subprocess.Popen(  # noqa: S603 our own interpreter and module
            [*self._command, child.role],
            pass_fds=tuple(inherited.values()),
            env={**_environment(), **told, **{name: str(descriptor) for name, descriptor in inherited.items()}},
        )
        os.close(theirs)
        child.started_at = time.monotonic()
        child.silent_s, child.is_up, child.was_silent = 0.0, False, False
        log.info("role.started", of_role=child.role, pid=child.process.pid)

    def _drain(self) -> None:
        running = [child.process for child in self._children if child.process is not None]
        for process in running:
            process.terminate()
        deadline = time.monotonic() + DRAIN_S
        for process in running:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                log.warning("role.killed", pid=process.pid)
                process.kill()
                process.wait()


def is_supervised() -> bool:
    """Say whether a supervisor started this process, to run one role."""
    return LIFELINE in os.environ


def shared_memory() -> int | None:
    """Return the descriptor of the memory that the processes of one supervisor share; None where there is none."""
    named = os.environ.get(SHARED)
    return None if named is None else int(named)


def role_command() -> list[str]:
    """Return the program that runs one role, named as its last argument."""
    return [sys.executable, "-m", "gateway", "serve", "--only"]


def count_restarts(counters: Counters) -> None:
    """Count how often earlier processes in the place of this one ended, as its supervisor told."""
    for each in filter(None, os.environ.get(RESTARTS, "").split(",")):
        why, _, count = each.partition("=")
        counters.add(f'hybridmed_role_restarts_total{{why="{why}"}}', int(count))


def predecessor() -> int | None:
    """Return the id of the ended process whose place this one takes; None where there is none."""
    return int(os.environ.get(AFTER, "0")) or None


def run_role(role: Role) -> None:
    """Run one role in this process until SIGTERM, SIGINT or the end of its supervisor; it gives signs of life."""
    stop = threading.Event()
    _set_on_signal(stop)
    lifeline = os.environ.pop(LIFELINE, None)
    if lifeline is not None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the supervisor drains the roles
        threading.Thread(target=_stop_at_end, args=(int(lifeline), stop), name="lifeline", daemon=True).start()
    pulse.begin()
    try:
        role.run(stop)
    except SystemExit as end:
        # All is closed by now. The interpreter's own end lets go of the device, which may never return once it is lost.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(end.code if isinstance(end.code, int) else 1)


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in pulse.OF_SYSTEMD}


def _make_shared() -> int:
    memory = os.memfd_create("hybridmed")
    os.ftruncate(memory, _SHARED_BYTES)
    os.pwrite(memory, os.urandom(_KEY_BYTES), 0)
    return memory


def _set_on_signal(stop: threading.Event) -> None:
    def handle(*_: object) -> None:
        # From a thread: the main thread may hold the event's own lock at the moment when the signal comes.
        threading.Thread(target=stop.set).start()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handle)


def _stop_at_end(lifeline: int, stop: threading.Event) -> None:
    os.read(lifeline, 1)  # nothing is ever written: this returns when the supervisor is gone
    if not stop.is_set():
        log.warning("supervisor.gone")
    stop.set()
