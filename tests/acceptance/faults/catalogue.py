"""All faults, which of them can be done here, and why the others cannot."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tests.acceptance.faults.clocks import CLOCKS
from tests.acceptance.faults.fault import Fault
from tests.acceptance.faults.hanging import HANGING
from tests.acceptance.faults.killing import KILLS
from tests.acceptance.faults.peers import PEERS
from tests.acceptance.faults.retention import RETENTION
from tests.acceptance.faults.services import SERVICES
from tests.acceptance.faults.site import Site
from tests.acceptance.faults.storage import STORAGE

ALL: Sequence[Fault] = (*KILLS, *HANGING, *PEERS, *STORAGE, *SERVICES, *CLOCKS, *RETENTION)


def choose(site: Site, only: str = "") -> tuple[list[Fault], dict[str, str]]:
    """Return the faults of this kind that can be done, and for each of the others what is missing.

    Parameters
    ----------
    only
        A regular expression that their names hold; '' all.
    """
    able: list[Fault] = []
    missing: dict[str, str] = {}
    for fault in ALL:
        if site.plan.kind not in fault.kinds or not re.search(only, fault.name):
            continue
        if fault.needs_mount and site.disk is None:
            missing[fault.name] = "needs the right to mount a tmpfs (root)"
        elif fault.needs_compiler and site.clock is None:
            missing[fault.name] = "needs a C compiler (cc)"
        else:
            able.append(fault)
    return able, missing
