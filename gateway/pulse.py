"""The sign of life of a role's process: to the supervisor by a pipe, or to systemd by its socket.

A thread gives it, so that what is noticed is a process that is stopped, or in which nobody gets a turn any more. Work
that does not return while the rest goes on is for those who know how long it may take (`gateway.lease`, time limits,
and `ended_when_hung` for what no job stands behind).
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator

import structlog

from gateway.services import HUNG

log = structlog.get_logger()

PIPE = "HYBRIDMED_PULSE_FD"
"""Environment variable that names a child's end of its own pipe."""
EVERY_S = 2.0
"""Seconds between signs."""
READY = "READY=1"
ALIVE = "WATCHDOG=1"
_SYSTEMD = "NOTIFY_SOCKET"
OF_SYSTEMD = (_SYSTEMD, "WATCHDOG_USEC", "WATCHDOG_PID")
"""Environment variables that are for the process that systemd started, and for none of its children."""


def begin() -> None:
    """Give signs from now on, to whoever started this process and listens."""
    descriptor = os.environ.pop(PIPE, None)
    if descriptor is not None:
        os.set_blocking(int(descriptor), False)
        _repeat(lambda: _write(int(descriptor)))
    elif tell_systemd(READY):
        _repeat(lambda: tell_systemd(ALIVE))


def tell_systemd(state: str) -> bool:
    """Say how this process stands (sd_notify(3)); False where systemd does not ask."""
    address = os.environ.get(_SYSTEMD)
    if not address:
        return False
    abstract = "\0" + address[1:] if address.startswith("@") else address
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as end:
        end.settimeout(EVERY_S)
        end.sendto(state.encode(), abstract)
    return True


def heard(descriptor: int) -> bool:
    """Say whether there were signs on a pipe, and take them."""
    try:
        return bool(os.read(descriptor, 1 << 16))
    except BlockingIOError:
        return False


@contextlib.contextmanager
def ended_when_hung(limit_s: float, what: str) -> Iterator[None]:
    """End this process where a call does not return in time and no job is held whose watchdog would do so."""

    def end() -> None:
        log.error("process.hung", during=what, limit_s=limit_s)
        os._exit(HUNG)

    timer = threading.Timer(limit_s, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _write(descriptor: int) -> None:
    with contextlib.suppress(BlockingIOError, BrokenPipeError):  # the supervisor is slow, or gone: see its lifeline
        os.write(descriptor, b".")


def _repeat(give: Callable[[], object]) -> None:
    never = threading.Event()

    def run() -> None:
        give()
        while not never.wait(EVERY_S):
            give()

    threading.Thread(target=run, name="pulse", daemon=True).start()
