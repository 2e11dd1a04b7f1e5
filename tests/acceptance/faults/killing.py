"""Processes killed, stopped, starved of memory; the power lost."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import signal
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import psutil
import pydicom
import sqlalchemy as sa

from tests.acceptance.faults.fault import POWER, SOON, Begin, End, Fault, over_at_once
from tests.acceptance.faults.site import LEASE_S, ROLES, Site
from tests.services.process import wait_until

_BUSY_WITHIN_S = 8.0
_HEADROOM_BYTES = 24 << 20
_LISTED_WITHIN_S = 60.0
_WRITTEN_WITHIN_S = 4.0
_WRITING_S = 0.01
_GLANCE_S = 0.001


def _kill(role: str) -> Begin:
    def begin(site: Site, dice: random.Random) -> End:
        pids = site.pids(role)
        if pids:
            site.kill(dice.choice(pids))
        return over_at_once

    return begin


def _kill_busy_worker(site: Site, dice: random.Random) -> End:
    """Kill the worker that holds a job, at some moment of its work, as the kernel does to one that takes too much."""
    deadline = time.monotonic() + _BUSY_WITHIN_S
    owners = sa.text(
        "SELECT service.pid FROM job JOIN service ON job.lease_owner LIKE service.id || '%' WHERE job.state = 'running'"
    )
    while time.monotonic() < deadline:
        with contextlib.suppress(sa.exc.DBAPIError), site.engine.connect() as connection:
            busy = set(connection.scalars(owners)) & set(site.pids("work"))
            if busy:
                time.sleep(dice.uniform(0, 0.8))
                site.kill(min(busy))
                return over_at_once
        time.sleep(0.05)
    return _kill("work")(site, dice)


def _stop(role: str) -> Begin:
    """Let a role hang: it holds what it holds, and does nothing."""

    def begin(site: Site, dice: random.Random) -> End:
        pids = site.pids(role)
        if not pids:
            return over_at_once
        pid = dice.choice(pids)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
        return partial(_continue, pid)

    return begin


def _continue(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


def _starve_worker(site: Site, dice: random.Random) -> End:
    """Let a worker have no more memory than it has."""
    pids = site.pids("work")
    if not pids:
        return over_at_once
    pid = dice.choice(pids)
    with contextlib.suppress(psutil.Error, ProcessLookupError):
        held = psutil.Process(pid).memory_info().vms
        resource.prlimit(pid, resource.RLIMIT_AS, (held + dice.randrange(_HEADROOM_BYTES), resource.RLIM_INFINITY))
    return partial(_feed, pid)


def _feed(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        resource.prlimit(pid, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def _lose_power(site: Site, dice: random.Random) -> End:
    """End everything at once, while an instance is written where one comes soon; at the end the power is back."""
    deadline = time.monotonic() + _WRITTEN_WITHIN_S
    while not _is_writing(site) and time.monotonic() < deadline:
        time.sleep(_GLANCE_S)
    time.sleep(dice.uniform(0, _WRITING_S))
    site.kill_all()
    return partial(_return_power, site, dice)


def _is_writing(site: Site) -> bool:
    return any((site.gateway.data_dir / "incoming").glob("*/*.part"))


def _return_power(site: Site, dice: random.Random) -> None:
    """Take from the disk what was not durable, and start again."""
    if site.power is None:
        raise ValueError("this fault needs a C compiler")
    with site.load.silence():  # all answers that were given are written down
        spooled = {path: _sop_instance_uid(path) for path in (site.gateway.data_dir / "incoming").glob("*/*.dcm")}
        loss = site.power.lose(dice)
    site.cut_files += len(loss.cut)
    site.lost_names += len(loss.names)
    site.undone_writes += loss.undone
    damaged = [path.name for path in loss.cut if path in spooled and not site.ledger.is_acknowledged(spooled[path])]
    _start_and_tidy(site, damaged)


def _sop_instance_uid(path: Path) -> str:
    return str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID)


def _start_and_tidy(site: Site, cut: Sequence[str]) -> None:
    """Start again, and do as an operator does with what was never answered and is found damaged."""
    site.start_again()
    if not cut:
        return
    quarantined = [f"quarantine/{name}" for name in cut]
    listed = partial(_are_listed, site, quarantined)
    wait_until(listed, _LISTED_WITHIN_S, "damaged instances in quarantine")
    ended = site.gateway.cli("dead", "discard", *quarantined)
    if ended.returncode != 0:
        raise RuntimeError(ended.stderr[-500:])


def _are_listed(site: Site, paths: Sequence[str]) -> bool:
    with site.engine.connect() as connection:
        return set(paths) <= set(connection.scalars(sa.text("SELECT path FROM quarantine")))


def _restart(site: Site, _dice: random.Random) -> End:
    """Drain and start again, as at an upgrade."""
    site.gateway.stop()
    return site.start_again


KILLS = (
    *(Fault(f"kill -9 of {role}", role, _kill(role), weight=3) for role in ROLES),
    Fault("kill -9 of a busy worker", "work", _kill_busy_worker, weight=4),
    Fault("worker hangs past its lease", "work", _stop("work"), (LEASE_S + 2, LEASE_S + 5), SOON),
    Fault("worker out of memory", "work", _starve_worker, (3, 6), "the worker is started again"),
    *(Fault(f"{role} hangs", role, _stop(role), (2, 5), SOON, weight=1) for role in ("receive", "dispatch", "deliver")),
    Fault("power lost", POWER, _lose_power, needs_compiler=True),
    Fault("drain and start", "all", _restart, weight=1),
)
"""Faults of our own processes."""
