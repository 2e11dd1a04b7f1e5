"""One fault after another under load, and how long each recovery took."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.acceptance.faults import verdict
from tests.acceptance.faults.ledger import SentStudy
from tests.acceptance.faults.verdict import Verdict
from tests.benchmarks.hosts.faults import Fault, all_faults
from tests.benchmarks.hosts.site import Site
from tests.services.process import wait_until

AWAY_S = 20.0
"""How long a host is away at least."""
RECOVERY_S = 120.0
"""Longest time to recover."""
_MOMENT_S = (3.0, 8.0)
"""Of load before a strike."""
_PAUSE_S = 180.0
"""Longest time until modalities have sent what they had begun."""


@dataclass
class Strike:
    """One fault, and what came of it; times in seconds, None where it was too long."""

    name: str
    host: str
    how: str
    rest: str
    away_s: float = 0.0
    """From the strike until it was mended."""
    recovery_s: float | None = None
    """Until the first result, at the PACS, of a study sent afterwards; from the strike on where others do the work of
    the host, from its mending on where nobody does."""
    taken_over_s: float | None = None
    """From the strike until everything acknowledged before it had its result, the host still away; where others do its
    work."""
    all_s: float | None = None
    """From the mending until everything acknowledged had its result."""
    found: Verdict = field(default_factory=Verdict)
    trouble: str = ""

    @property
    def is_good(self) -> bool:
        """Whether nothing is lost, doubled or stuck and the recovery came in time."""
        return self.found.is_good and not self.trouble


@dataclass
class Course:
    """What a campaign did and found."""

    usual_s: float = 0.0
    """From a study's beginning to its first result, without a fault (median)."""
    strikes: list[Strike] = field(default_factory=list)
    took_s: float = 0.0


class Campaign:
    """Strikes; runs once.

    Parameters
    ----------
    site
        What is struck.
    most
        How many faults; None: each once.
    only
        A regular expression that the names of the chosen faults hold.
    limit_s
        After which no further fault is begun.
    tell
        Hears how it goes.
    """

    def __init__(
        self, site: Site, *, most: int | None, only: str, limit_s: float, tell: Callable[[Strike], None]
    ) -> None:
        self._site = site
        self._limit_s = limit_s
        self._tell = tell
        self._dice = random.Random(site.plan.seed)
        faults = [fault for fault in all_faults(site) if re.search(only, fault.name)]
        self._faults = self._dice.sample(faults, len(faults))[:most]
        self._seen = Verdict()

    def run(self) -> Course:
        """Return what was found; ends early where something is lost, doubled or stuck."""
        began = time.monotonic()
        course = Course(usual_s=self._usual_s())
        for fault in self._faults:
            if time.monotonic() - began > self._limit_s:
                break
            strike = self._run(fault)
            course.strikes.append(strike)
            self._tell(strike)
            course.took_s = time.monotonic() - began
            if not strike.found.is_good:
                break
        return course

    def _usual_s(self) -> float:
        """Return how long results usually take, once the first have come."""
        began_s = time.monotonic()
        self._first_result(began_s, RECOVERY_S)
        began_s = time.monotonic()
        time.sleep(AWAY_S)
        times = sorted(at_s - study.begun_s for study, at_s in self._first_arrivals(began_s))
        return times[len(times) // 2] if times else 0.0

    def _run(self, fault: Fault) -> Strike:
        strike = Strike(fault.name, fault.host, fault.how, fault.rest)
        self._site.load.resume()
        time.sleep(self._dice.uniform(*_MOMENT_S))
        struck_s = time.monotonic()
        earlier = [study for study in self._site.ledger.studies() if study.is_whole]
        fault.strike()
        try:
            if fault.rest != "nothing goes on":
                strike.recovery_s = self._first_result(struck_s, RECOVERY_S)
            if fault.rest == "all goes on":
                strike.taken_over_s = self._all_results(earlier, struck_s)
            time.sleep(max(0.0, AWAY_S - (time.monotonic() - struck_s)))
        finally:
            fault.mend()
        mended_s = time.monotonic()
        strike.away_s = mended_s - struck_s
        if fault.rest == "nothing goes on":
            strike.recovery_s = self._first_result(mended_s, RECOVERY_S)
        self._compare(strike, mended_s)
        return strike

    def _compare(self, strike: Strike, mended_s: float) -> None:
        """Let everything come to its end, and say what is not as it must be since the last time."""
        try:
            self._site.load.pause(_PAUSE_S)
        except TimeoutError as error:
            strike.trouble = str(error)
        strike.all_s = self._all_results([one for one in self._site.ledger.studies() if one.is_whole], mended_s)
        found = verdict.judge(self._site)
        strike.found = Verdict(
            [each for each in found.lost if each not in self._seen.lost],
            [each for each in found.doubled if each not in self._seen.doubled],
            [each for each in found.stuck if each not in self._seen.stuck],
        )
        self._seen = found
        late = [name for name in ("recovery_s", "all_s") if getattr(strike, name) is None]
        if strike.rest == "all goes on" and strike.taken_over_s is None:
            late.append("taken_over_s")
        if late and not strike.trouble:
            strike.trouble = f"too late: {', '.join(late)}"

    def _first_result(self, since_s: float, within_s: float) -> float | None:
        """Wait for the first result of a study begun after a moment; return the seconds from then."""
        try:
            wait_until(lambda: bool(self._first_arrivals(since_s)), within_s, "a result")
        except TimeoutError:
            return None
        return min(at_s for _, at_s in self._first_arrivals(since_s)) - since_s

    def _all_results(self, studies: list[SentStudy], since_s: float) -> float | None:
        """Wait for results of all these studies; return the seconds from a moment to the last one."""
        wanted = {study.uid for study in studies}

        def all_came() -> bool:
            return wanted <= self._answered().keys()

        try:
            wait_until(all_came, max(0.0, since_s + RECOVERY_S - time.monotonic()), "all results")
        except TimeoutError:
            return None
        answered = self._answered()
        return max([0.0, *(answered[uid] - since_s for uid in wanted)])

    def _first_arrivals(self, since_s: float) -> list[tuple[SentStudy, float]]:
        """Return the studies begun after a moment with the time of their first result."""
        answered = self._answered()
        later = [study for study in self._site.ledger.studies() if study.begun_s > since_s]
        return [(study, answered[study.uid]) for study in later if study.uid in answered]

    def _answered(self) -> dict[str, float]:
        """Return when the first result of each study came."""
        found: dict[str, float] = {}
        for arrivals in self._site.ledger.arrivals().values():
            for arrival in arrivals:
                found[arrival.study_uid] = min(arrival.at_s, found.get(arrival.study_uid, arrival.at_s))
        return found
