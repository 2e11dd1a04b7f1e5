"""All faults, which of them can be done here, and why the others cannot."""

from __future__ import annotations

from collections.abc import Sequence

from tests.acceptance.faults.clocks import CLOCKS
from tests.acceptance.faults.fault import Fault
from tests.acceptance.faults.killing import KILLS
from tests.acceptance.faults.peers import PEERS
from tests.acceptance.faults.services import SERVICES
from tests.acceptance.faults.site import Site
from tests.acceptance.faults.storage import STORAGE

ALL: Sequence[Fault] = (*KILLS, *PEERS, *STORAGE, *SERVICES, *CLOCKS)


def choose(site: Site) -> tuple[list[Fault], dict[str, str]]:
    """Return the faults that can be done, and for each of the others why not."""
    able: list[Fault] = []
    skipped: dict[str, str] = {}
    for fault in ALL:
        if site.plan.kind not in fault.kinds:
            skipped[fault.name] = f"not with --kind {site.plan.kind}"
        elif fault.needs_mount and site.disk is None:
            skipped[fault.name] = "needs the right to mount a tmpfs (root)"
        elif fault.needs_clock and site.clock is None:
            skipped[fault.name] = "needs a C compiler (cc)"
        else:
            able.append(fault)
    return able, skipped
