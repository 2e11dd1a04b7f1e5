"""How often one caller, and one network address, may ask: token buckets; of several processes see `shared`.

A bucket holds `burst` requests and refills at `per_s`. The table is bounded: where it is full, the bucket that was used
longest ago goes, which by then is full again or belongs to somebody who is not here any more.
"""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from starlette.requests import HTTPConnection

from gateway.web.access.shared import SharedBuckets

_MOST_BUCKETS: Final = 20_000
_PREFIX_V6: Final = 64
"""One subscriber has a whole network of this size, and would otherwise have a bucket for each of its addresses."""
_MINUTE_S = 60.0


class Buckets:
    """Buckets by name; for one thread, that of the event loop.

    Parameters
    ----------
    per_s
        Refilled so fast.
    burst
        Size.
    clock
        Monotonic, in seconds.
    """

    def __init__(self, per_s: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_s
        self._burst = max(burst, 1.0)
        self._clock = clock
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, name: str) -> float:
        """Take one request; return 0, or the seconds after which there is one to take."""
        level, now = self._level(name)
        if level < 1.0:
            return (1.0 - level) / self._per_s
        self._levels[name] = (level - 1.0, now)
        self._levels.move_to_end(name)
        if len(self._levels) > _MOST_BUCKETS:
            self._levels.popitem(last=False)
        return 0.0

    def wait_s(self, name: str) -> float:
        """Return the seconds after which there is a request to take, 0 for now; nothing is taken."""
        level, _ = self._level(name)
        return 0.0 if level >= 1.0 else (1.0 - level) / self._per_s

    def _level(self, name: str) -> tuple[float, float]:
        now = self._clock()
        level, at = self._levels.get(name, (self._burst, now))
        return min(self._burst, level + (now - at) * self._per_s), now


@dataclass(frozen=True, slots=True)
class Rates:
    """The bounds, as in the settings."""

    requests_per_s: float = 500.0
    burst: float = 2000.0
    address_requests_per_s: float = 1000.0
    address_burst: float = 4000.0
    failures_per_minute: float = 30.0


class Taking(Protocol):
    """What `Buckets` and `shared.SharedBuckets` do."""

    def take(self, name: str) -> float:
        """Take one request; return 0, or the seconds after which there is one to take."""

    def wait_s(self, name: str) -> float:
        """Return the seconds after which there is a request to take, 0 for now."""


class Limits:
    """All buckets.

    Parameters
    ----------
    rates
        The bounds.
    memory
        That the web processes of this host share; None: there is but this one.
    clock
        Monotonic, in seconds.
    """

    def __init__(self, rates: Rates, memory: int | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        def made(table: str, per_s: float, burst: float) -> Taking:
            return Buckets(per_s, burst, clock) if memory is None else SharedBuckets(memory, table, per_s, burst, clock)

        self._callers = made("caller", rates.requests_per_s, rates.burst)
        self._addresses = made("address", rates.address_requests_per_s, rates.address_burst)
        self._failures = made("failure", rates.failures_per_minute / _MINUTE_S, rates.failures_per_minute)

    def address_wait_s(self, address: str) -> float:
        """Count a request of an address; return 0, or how long it has to wait."""
        return self._addresses.take(address)

    def caller_wait_s(self, name: str) -> float:
        """Count a request of a caller; return 0, or how long it has to wait."""
        return self._callers.take(name)

    def failure_wait_s(self, address: str) -> float:
        """Return how long an address has to wait before it may show a token again, 0 for not at all."""
        return self._failures.wait_s(address)

    def note_failure(self, address: str) -> None:
        """Count a token or sign-in that was refused."""
        self._failures.take(address)


def address_of(request: HTTPConnection) -> str:
    """Return where a request comes from, as far as it is one subscriber's; '' where the server does not say."""
    host = request.client.host if request.client is not None else ""
    try:
        parsed = ipaddress.ip_address(host)
    except ValueError:
        return host
    if parsed.version == 6:  # noqa: PLR2004 # IP's own number
        mapped = parsed.ipv4_mapped
        return str(mapped or ipaddress.ip_network((parsed, _PREFIX_V6), strict=False).network_address)
    return host
