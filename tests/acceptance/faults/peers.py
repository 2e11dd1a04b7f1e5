"""The PACS away, unwilling or slow, and what the network does to results on their way."""

from __future__ import annotations

import random
from functools import partial

from tests.acceptance.faults.fault import Begin, End, Fault, over_at_once
from tests.acceptance.faults.pacs import Mood
from tests.acceptance.faults.proxy import Mode, Proxy
from tests.acceptance.faults.site import Site


def set_mode(proxy: Proxy, mode: Mode) -> None:
    """Let a proxy pass on, or not."""
    proxy.mode = mode


def _with_mood(mood: Mood) -> Begin:
    def begin(site: Site, _dice: random.Random) -> End:
        site.pacs.mood = mood
        return partial(setattr, site.pacs, "mood", "well")

    return begin


def _with_network(mode: Mode) -> Begin:
    def begin(site: Site, _dice: random.Random) -> End:
        set_mode(site.pacs_proxy, mode)
        if mode == "refuse":
            site.pacs_proxy.reset()
        return partial(set_mode, site.pacs_proxy, "pass")

    return begin


def _reset(site: Site, _dice: random.Random) -> End:
    site.pacs_proxy.reset()
    return over_at_once


def _half_close(site: Site, dice: random.Random) -> End:
    """Answer slowly, so that something is under way, and end the direction to the gateway in the middle of it."""
    site.pacs.mood = "slow"

    def end() -> None:
        site.pacs_proxy.half_close()
        site.pacs.mood = "well"

    return end


PEERS = (
    Fault("PACS refuses connections", "pacs", _with_network("refuse"), (3, 9), part="deliveries"),
    Fault("PACS rejects associations", "pacs", _with_mood("rejecting"), (3, 9), part="deliveries"),
    Fault("PACS is out of resources", "pacs", _with_mood("full"), (3, 9), part="deliveries"),
    # A refusal counts as a try, and there are five, the last after six seconds and a half: it ends before.
    Fault("PACS fails", "pacs", _with_mood("failing"), (1, 3)),
    Fault("PACS keeps and does not answer", "pacs", _with_mood("silent"), (4, 12), part="deliveries"),
    Fault("PACS is slow", "pacs", _with_mood("slow"), (4, 8), weight=1),
    Fault("PACS hangs", "pacs", _with_network("stall"), (4, 12), part="deliveries"),
    Fault("PACS half-closes", "pacs", _half_close, (1, 4)),
    Fault("connection to the PACS reset", "pacs", _reset),
)
"""Faults of the PACS and of the way to it."""
