"""Leases in hand are renewed by a thread, so that long work keeps what it holds; but work that hangs does not."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import sqlalchemy as sa
import structlog

from gateway.errors import LeaseLostError, ServiceAwayError

T = TypeVar("T")
log = structlog.get_logger()


class Lease(Generic[T]):
    """One lease in hand.

    Parameters
    ----------
    claim
        What is held.
    """

    def __init__(self, claim: T) -> None:
        self.claim = claim
        self._begun_s = time.monotonic()
        self._lost = threading.Event()

    @property
    def is_lost(self) -> bool:
        """Whether a renewal was refused: another holds it, or it was cancelled."""
        return self._lost.is_set()

    @property
    def age_s(self) -> float:
        """Seconds since it was taken, or since the work on it began; below 0 while it may wait for its turn."""
        return time.monotonic() - self._begun_s

    def begin(self) -> None:
        """Note that the work begins now."""
        self._begun_s = time.monotonic()

    def pause(self, allowance_s: float) -> None:
        """Note that nothing is done on it for now: for so long, whatever hangs is not this; then it counts as begun."""
        self._begun_s = time.monotonic() + allowance_s

    def lose(self) -> None:
        """Note that a renewal was refused."""
        self._lost.set()

    def require(self) -> None:
        """Raise LeaseLostError where the lease is lost."""
        if self.is_lost:
            raise LeaseLostError("the lease passed to another owner")


@dataclass(frozen=True, slots=True)
class Watchdog(Generic[T]):
    """What happens to work that hangs."""

    limit_s: float
    """Age of a lease from which on its work counts as hanging."""
    bite: Callable[[T], None]
    """Called, by the keeper's thread, in place of a renewal."""
    growl: Callable[[T], None] = lambda _claim: None
    """Called, likewise, before a renewal, once half the limit is over."""


class LeaseKeeper(Generic[T]):
    """Renews the leases in hand; a context manager around the work.

    Parameters
    ----------
    renew
        Renews one claim; False where it is lost.
    every_s
        Seconds between renewals, well under the lease's length.
    name
        Of the thread.
    watchdog
        Looks for work that hangs; None: leases are renewed for ever.
    """

    def __init__(
        self, renew: Callable[[T], bool], every_s: float, name: str, watchdog: Watchdog[T] | None = None
    ) -> None:
        self._renew = renew
        self._watchdog = watchdog
        self._every_s = every_s
        self._held: list[Lease[T]] = []
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._renew_until_done, name=name, daemon=True)

    def hold(self, claim: T) -> Lease[T]:
        """Keep a claim until `release`."""
        lease = Lease(claim)
        with self._lock:
            self._held.append(lease)
        return lease

    def release(self, lease: Lease[T]) -> None:
        """Stop renewing."""
        with self._lock:
            self._held.remove(lease)

    def __enter__(self) -> LeaseKeeper[T]:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._done.set()
        self._thread.join()

    def _renew_until_done(self) -> None:
        while not self._done.wait(self._every_s):
            with self._lock:
                held = [lease for lease in self._held if not lease.is_lost]
            for lease in held:
                if self._watchdog is not None and lease.age_s > self._watchdog.limit_s:
                    self._watchdog.bite(lease.claim)
                    continue
                if self._watchdog is not None and lease.age_s > self._watchdog.limit_s / 2:
                    self._watchdog.growl(lease.claim)
                self._renew_one(lease)

    def _renew_one(self, lease: Lease[T]) -> None:
        try:
            if not self._renew(lease.claim):
                lease.lose()
        except ServiceAwayError as error:
            # Nobody else can take it either while the database is away.
            log.warning("lease.renewal_failed", reason=str(error))
        except sa.exc.SQLAlchemyError as error:
            log.warning("lease.renewal_failed", error=type(error).__name__)
