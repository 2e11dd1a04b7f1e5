"""Studies that have had their time are removed while the rest goes on."""

from __future__ import annotations

import random
from functools import partial

from tests.acceptance.faults.fault import End, Fault
from tests.acceptance.faults.site import Site
from tests.services.process import HANGS_S, Program, wait_until


def _purge(site: Site, _dice: random.Random) -> End:
    return partial(_wait, site.operate("purge"))


def _wait(program: Program) -> None:
    """Let it end by itself; where it meets another fault it may fail, and what it left is removed later."""
    wait_until(lambda: not program.is_running, HANGS_S, "end of purge")


def _purge_and_kill(site: Site, _dice: random.Random) -> End:
    """Kill the command somewhere in its work."""
    program = site.operate("purge")

    def end() -> None:
        program.kill()

    return end


RETENTION = (
    Fault("studies removed", "retention", _purge, weight=6),
    Fault("removal of studies killed", "retention", _purge_and_kill, (1, 4), weight=3),
)
"""Faults of the operator."""
