"""Steps of the clock."""

from __future__ import annotations

import random
from functools import partial

from tests.acceptance.faults.fault import Begin, End, Fault, over_at_once
from tests.acceptance.faults.sign import Sign, grows
from tests.acceptance.faults.site import Site

_HOUR_S = 3600
_SET_BACK = Sign(None, grows("hybridmed_clock_set_back_total"), None)
"""What to do about a clock is no matter of the gateway: it goes on, and counts."""
_AHEAD = "nothing waits for longer"


def _step(least_s: int, most_s: int) -> Begin:
    """Set the clock, and put it right at the end: a step in the other direction."""

    def begin(site: Site, dice: random.Random) -> End:
        if site.clock is None:
            return over_at_once
        site.clock.set(dice.randint(least_s, most_s))
        return partial(site.clock.set, 0)

    return begin


CLOCKS = (
    Fault("clock set back", "clock", _step(-_HOUR_S, -20), (3, 9), _SET_BACK, needs_compiler=True),
    Fault("clock set ahead", "clock", _step(20, _HOUR_S), (3, 9), _AHEAD, needs_compiler=True),
)
"""Steps of the clock."""
