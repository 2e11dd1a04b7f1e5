"""The disk full or read-only, the SQLite database locked by another."""

from __future__ import annotations

import contextlib
import random
import sqlite3
import threading
from functools import partial

from tests.acceptance.faults.fault import Begin, End, Fault, over_at_once
from tests.acceptance.faults.site import RESERVE_MIB, Site

_MIB = 1 << 20
_LOCK_WITHIN_S = 10.0


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
                ending.wait(60)
                one.execute("ROLLBACK")

    thread = threading.Thread(target=hold, name="lock", daemon=True)
    thread.start()
    locked.wait(_LOCK_WITHIN_S)
    return partial(_release, ending, thread)


def _release(ending: threading.Event, thread: threading.Thread) -> None:
    ending.set()
    thread.join(10)


STORAGE = (
    Fault(
        "disk under its reserve", "disk", _shrink(8 * _MIB, RESERVE_MIB * _MIB // 2), (3, 8), "disk", needs_mount=True
    ),
    Fault("disk full", "disk", _shrink(0, _MIB // 4), (4, 9), "disk", needs_mount=True),
    Fault("spool read-only", "disk", _make_read_only("incoming"), (3, 8), "disk", needs_mount=True),
    Fault("results read-only", "disk", _make_read_only("results"), (3, 8), "disk", needs_mount=True),
    Fault("database locked", "database", _lock_database, (2, 8), kinds=frozenset({"sqlite"})),
)
"""Faults of disk and embedded database."""
