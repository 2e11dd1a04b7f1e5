"""Processes that hang for ever and are not woken; a device that is lost. It is over when another took the place."""

from __future__ import annotations

import contextlib
import os
import random
import signal
from functools import partial

import psutil

from tests.acceptance.faults.device import Order
from tests.acceptance.faults.fault import Begin, End, Fault, over_at_once
from tests.acceptance.faults.site import JOB_LIMIT_S, ROLES, SILENCE_LIMIT_S, Site
from tests.services.process import wait_until

_REPLACED = "it is replaced before it counts as gone"
_UNTIL_THERE_IS_WORK_S = 60.0


def _stop_for_good(role: str) -> Begin:
    def begin(site: Site, dice: random.Random) -> End:
        pids = _supervised(site, role)
        if not pids:
            return over_at_once
        pid = dice.choice(pids)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
        return partial(_wait_until_gone, pid, SILENCE_LIMIT_S)

    return begin


def _order(what: Order, within_s: float) -> Begin:
    """Let the device of a supervised worker fail at its next inference."""

    def begin(site: Site, dice: random.Random) -> End:
        pids = _supervised(site, "work")
        if not pids:
            return over_at_once
        pid = dice.choice(pids)
        site.device.order(pid, what)
        return partial(_wait_until_gone, pid, within_s + _UNTIL_THERE_IS_WORK_S)

    return begin


def _supervised(site: Site, role: str) -> list[int]:
    found = []
    for pid in site.pids(role):
        with contextlib.suppress(psutil.Error):
            if psutil.Process(pid).ppid() == site.gateway.program.pid:
                found.append(pid)
    return found


def _wait_until_gone(pid: int, within_s: float) -> None:
    wait_until(lambda: not psutil.pid_exists(pid), 2 * within_s, f"end of process {pid}")


HANGING = (
    *(Fault(f"{role} stopped for ever", role, _stop_for_good(role), sign=_REPLACED, weight=1) for role in ROLES),
    Fault("worker stuck for ever", "work", _order("stick", SILENCE_LIMIT_S), sign=_REPLACED, weight=1),
    Fault("device hangs for ever", "work", _order("hang", JOB_LIMIT_S), sign=_REPLACED, weight=1),
    Fault("device lost", "work", _order("lose", 0.0), sign=_REPLACED),
)
"""Faults that nothing ends but the gateway itself."""
