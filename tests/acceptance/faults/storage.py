"""The disk full or read-only, the SQLite database locked by another."""

from __future__ import annotations

import contextlib
import random
import sqlite3
import threading
from functools import partial

from tests.acceptance.faults.fault import POWER, Begin, End, Fault, over_at_once
from tests.acceptance.faults.sign import Sign, is_at, is_short_of_disk, is_without_roles
from tests.acceptance.faults.site import RESERVE_MIB, Site

_MIB = 1 << 20
_LOCK_WITHIN_S = 10.0
_LOCK_LIMIT_S = 90.0


def _shrink(least: int, most: int) -> Begin:
    """Leave between so many bytes free."""

    def begin(site: Site, dice: random.Random) -> End:
        if site.disk is None:
            return over_at_once
        site.disk.shrink(dice.randrange(least, most))
        return site.disk.grow

    return begin


def _make_read_only(folder: str) -> Begin:
    """Let a folder take no writes, as the kernel does after an error of the disk."""

    def begin(site: Site, _dice: random.Random) -> End:
        if site.disk is None:
            return over_at_once
        site.disk.make_read_only(folder)
        return site.disk.make_writable

    return begin


def _lock_database(site: Site, _dice: random.Random) -> End:
    """Hold SQLite's write lock, as a backup tool or a careless shell does."""
    ending = threading.Event()
    locked = threading.Event()

    def hold() -> None:
        with contextlib.closing(sqlite3.connect(site.gateway.data_dir / "hybridmed.db", timeout=_LOCK_WITHIN_S)) as one:
            one.isolation_level = None
            with contextlib.suppress(sqlite3.OperationalError):
                one.execute("BEGIN IMMEDIATE")
                locked.set()
                ending.wait(_LOCK_LIMIT_S)
                one.execute("ROLLBACK")

    thread = threading.Thread(target=hold, name="lock", daemon=True)
    thread.start()
    locked.wait(_LOCK_WITHIN_S)
    return partial(_release, ending, thread)


def _release(ending: threading.Event, thread: threading.Thread) -> None:
    ending.set()
    thread.join(10)


_UNDER_RESERVE = Sign(
    "^disk: .*under the reserve", is_short_of_disk, "^data folder: .*(under the reserve|No space left)"
)


def _is_read_only(folder: str) -> Sign:
    where = f"read-only.*: {folder}"
    return Sign(f"^disk: {where}", is_at(0, "hybridmed_disk_writable"), f"^data folder: .*{where}")


STORAGE = (
    Fault(
        "disk under its reserve",
        "disk",
        _shrink(8 * _MIB, RESERVE_MIB * _MIB // 2),
        (3, 8),
        _UNDER_RESERVE,
        needs_mount=True,
    ),
    Fault("disk full", "disk", _shrink(0, _MIB // 4), (4, 9), _UNDER_RESERVE, needs_mount=True),
    *(
        Fault(name, "disk", _make_read_only(folder), (3, 8), _is_read_only(folder), needs_mount=True)
        for name, folder in (("spool read-only", "incoming"), ("results read-only", "results"))
    ),
    Fault(
        "database locked",
        "database",
        _lock_database,
        (2, 8),
        Sign("^role .*: not running", is_without_roles, "^role .*: not running"),
        kinds=frozenset({"sqlite"}),
        not_with=frozenset({POWER}),  # who holds the lock lives on, and would write the log back that the power took
    ),
)
"""Faults of disk and embedded database."""
