"""The PACS away, unwilling or slow, and what the network does to results on their way."""

from __future__ import annotations

import contextlib
import random
from functools import partial

from tests.acceptance.faults.fault import Begin, End, Fault, over_at_once
from tests.acceptance.faults.pacs import Mood
from tests.acceptance.faults.proxy import Mode, Proxy
from tests.acceptance.faults.sign import Sign, grows, is_slow_at_sending
from tests.acceptance.faults.site import Site
from tests.services.process import wait_until

_REFUSED_WITHIN_S = 20.0


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


def _fail(site: Site, _dice: random.Random) -> End:
    """Refuse objects; it lasts from the first refusal on."""
    refused = site.pacs.refused
    site.pacs.mood = "failing"
    with contextlib.suppress(TimeoutError):
        wait_until(lambda: site.pacs.refused > refused, _REFUSED_WITHIN_S, "an object refused")
    return partial(setattr, site.pacs, "mood", "well")


_HELD_BACK = "^deliveries: PACS: .*in back-off"
_COUNTED = grows("hybridmed_deliveries_total", destination="PACS", outcome="away")
_NO_ECHO = Sign(_HELD_BACK, _COUNTED, "^destination PACS: .*does not answer C-ECHO")
_NO_STORE = Sign(_HELD_BACK, _COUNTED, "^role deliver: .*destination PACS")

PEERS = (
    Fault("PACS refuses connections", "pacs", _with_network("refuse"), (3, 9), _NO_ECHO),
    Fault("PACS rejects associations", "pacs", _with_mood("rejecting"), (3, 9), _NO_ECHO),
    Fault("PACS is out of resources", "pacs", _with_mood("full"), (3, 9), _NO_STORE),
    # A refusal counts as a try, and there are five, the last after six seconds and a half: it ends before, and before
    # the heartbeat that brings the count.
    Fault("PACS fails", "pacs", _fail, (0.5, 2), Sign(_HELD_BACK, None, None)),
    Fault("PACS keeps and does not answer", "pacs", _with_mood("silent"), (4, 12), _NO_STORE),
    Fault("PACS is slow", "pacs", _with_mood("slow"), (4, 8), Sign(None, is_slow_at_sending, None), weight=1),
    Fault("PACS hangs", "pacs", _with_network("stall"), (4, 12), _NO_ECHO),
    Fault("PACS half-closes", "pacs", _half_close, (1, 4)),
    Fault("connection to the PACS reset", "pacs", _reset),
)
"""Faults of the PACS and of the way to it."""
