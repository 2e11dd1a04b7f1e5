"""Faults at random moments under load, singly and in pairs, in rounds; after each round the model is compared."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tests.acceptance.faults import verdict
from tests.acceptance.faults.catalogue import choose
from tests.acceptance.faults.fault import POWER, End, Fault
from tests.acceptance.faults.sign import Sample, Sign
from tests.acceptance.faults.site import Site
from tests.acceptance.faults.verdict import Verdict
from tests.acceptance.faults.watch import OVER_WITHIN_S, Sight, Watch
from tests.services.process import HANGS_S

_SEEN_WITHIN_S = 50.0
_PAUSE_S = (0.2, 1.5)
_PAIR_SHARE = 0.35
_LAST_CHANCE_S = 120.0
_LOOKS = 2
"""How often each fault is held until it is seen; further ones last as they come."""


@dataclass
class Strike:
    """One fault, or a pair of them, and what came of it."""

    names: list[str]
    at_s: float
    lasted_s: float = 0.0
    seen: dict[str, Sight] = field(default_factory=dict)
    """Of the faults that were held until they were seen."""
    over_s: float | None = None
    """After the end; None: not in time."""
    trouble: str = ""


@dataclass
class Course:
    """What a campaign did and found."""

    strikes: list[Strike] = field(default_factory=list)
    rounds: list[Verdict] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    """Faults that cannot be done here -> what is missing."""
    without_sign: dict[str, str] = field(default_factory=dict)
    """Faults that show nowhere -> why."""
    took_s: float = 0.0

    @property
    def fault_count(self) -> int:
        """How many faults there were; a pair is two."""
        return sum(len(strike.names) for strike in self.strikes)


class Campaign:
    """Strikes until there were so many faults; runs once.

    Parameters
    ----------
    site
        What is struck.
    faults
        How many faults.
    per_round
        Faults after which the model is compared.
    tell
        Hears how it goes.
    only
        A regular expression that the names of the chosen faults hold; '' all.
    limit_s
        After which no further fault is begun.
    keep
        Takes what was found so far, after each round.
    over_within_s
        After the end of a fault everything is ready again within this time.
    """

    def __init__(  # noqa: PLR0913 # what a campaign is made of, by name
        self,
        site: Site,
        *,
        faults: int,
        per_round: int,
        tell: Callable[[str], None],
        only: str = "",
        limit_s: float = 3600.0,
        keep: Callable[[Course], None] = lambda _course: None,
        over_within_s: float = OVER_WITHIN_S,
    ) -> None:
        self._site = site
        self._count = faults
        self._per_round = per_round
        self._tell = tell
        self._limit_s = limit_s
        self._keep = keep
        self._over_within_s = over_within_s
        self._dice = random.Random(site.plan.seed)
        self._watch = Watch(site)
        self._looks: Counter[str] = Counter()
        able, skipped = choose(site, only)
        self._able = able
        unseen = {fault.name: fault.sign for fault in self._able if isinstance(fault.sign, str)}
        self._course = Course(missing=skipped, without_sign=unseen)

    def run(self) -> Course:
        """Return what was found; ends early where the gateway does not come back."""
        began = time.monotonic()
        with self._watch:
            self._run_rounds(began)
        return self._course

    def _run_rounds(self, began: float) -> None:
        if self._watch.wait_until_over(HANGS_S) is None:
            raise RuntimeError(f"the gateway is not ready at the start: {self._watch.why_not()}")
        goes_on = True
        while goes_on and self._course.fault_count < self._count:
            goes_on = self._round(began)
            self._course.took_s = time.monotonic() - began
            self._keep(self._course)

    def _round(self, began: float) -> bool:
        self._site.load.resume()
        target = min(self._course.fault_count + self._per_round, self._count)
        goes_on = True
        while goes_on and self._course.fault_count < target:
            time.sleep(self._dice.uniform(*_PAUSE_S))
            faults = self._choose(target - self._course.fault_count)
            strike = Strike([fault.name for fault in faults], round(time.monotonic() - began, 1))
            self._course.strikes.append(strike)
            self._strike(strike, faults)
            self._tell(f"{self._course.fault_count:4} {_in_words(strike)}")
            goes_on = strike.trouble == "" and time.monotonic() - began < self._limit_s
        found = self._compare()
        self._course.rounds.append(found)
        self._tell(f"{self._course.fault_count:4} {found if not found.is_good else 'nothing lost, doubled or stuck'}")
        return goes_on and found.is_good

    def _compare(self) -> Verdict:
        try:
            self._site.load.pause()
        except TimeoutError as error:
            return Verdict(stuck=[str(error)])
        return verdict.judge(self._site)

    def _choose(self, most: int) -> Sequence[Fault]:
        weights = [fault.weight for fault in self._able]
        first = self._dice.choices(self._able, weights)[0]
        others = [fault for fault in self._able if fault.goes_with(first)]
        if most < 2 or not others or self._dice.random() > _PAIR_SHARE:
            return [first]
        pair = [first, self._dice.choices(others, [fault.weight for fault in others])[0]]
        return sorted(pair, key=lambda fault: fault.subject == POWER)

    def _strike(self, strike: Strike, faults: Sequence[Fault]) -> None:
        began = time.monotonic()
        before = self._watch.samples()
        ends: list[End] = []
        try:
            for fault in faults:
                ends.append(fault.begin(self._site, self._dice))
                time.sleep(self._dice.uniform(0, 0.5) if len(faults) > 1 else 0)
            self._hold(strike, faults, before)
        finally:
            last = [ends.pop()] if len(ends) == len(faults) and faults[-1].subject == POWER else []
            self._dice.shuffle(ends)
            for end in (*ends, *last):
                end()
            strike.lasted_s = round(time.monotonic() - began, 1)
        over_s = self._watch.wait_until_over(self._over_within_s)
        strike.over_s = None if over_s is None else round(over_s, 1)
        if over_s is None:
            strike.trouble = f"not over within {self._over_within_s:.0f} s: {self._watch.why_not()}"
            self._watch.wait_until_over(_LAST_CHANCE_S)

    def _hold(self, strike: Strike, faults: Sequence[Fault], before: Sequence[Sample]) -> None:
        """Let it last; what degrades the gateway is held a few times until it is seen."""
        until = time.monotonic() + max(self._dice.uniform(*fault.lasts_s) for fault in faults)
        for fault in faults if len(faults) == 1 else ():
            if isinstance(fault.sign, Sign) and self._looks[fault.name] < _LOOKS:
                asks_doctor = self._looks[fault.name] == 0
                self._looks[fault.name] += 1
                strike.seen[fault.name] = self._watch.look_for(
                    fault.sign, before, _SEEN_WITHIN_S, asks_doctor=asks_doctor
                )
        time.sleep(max(0.0, until - time.monotonic()))


def _in_words(strike: Strike) -> str:
    over = f"over after {strike.over_s} s" if strike.over_s is not None else strike.trouble
    return f"{' and '.join(strike.names)}, {strike.lasted_s} s; {over}"
