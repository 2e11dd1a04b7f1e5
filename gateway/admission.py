"""Who may associate, from where, with which certificate, and what for (pure but for the pace)."""

from __future__ import annotations

import hashlib
import math
import ssl
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from gateway.config.peers import Peer, Right


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an association is rejected (PS3.8 table 9-21)."""

    result: int
    """1: for good, 2: for now."""
    source: int
    diagnostic: int
    reason: str
    """For log and audit trail."""


_PERMANENT, _TRANSIENT = 1, 2
_SERVICE_USER, _PRESENTATION = 1, 3
_CALLING_AE_NOT_RECOGNISED, _LOCAL_LIMIT = 3, 2
_MOST_WAITING = 1000
"""Instances that may wait for their turn: one for each association that the settings allow."""


TOO_MANY = Refusal(_TRANSIENT, _PRESENTATION, _LOCAL_LIMIT, "too many associations")
TOO_MANY_OF_TITLE = Refusal(_TRANSIENT, _PRESENTATION, _LOCAL_LIMIT, "too many associations of this AE title")


def certificate_names(channel: object) -> frozenset[str] | None:
    """Return the names of a peer's certificate, as the settings write them; None where it showed none."""
    if not isinstance(channel, ssl.SSLSocket):
        return None
    encoded = channel.getpeercert(binary_form=True)
    told: dict[str, Any] = dict(channel.getpeercert() or {})  # typed for every field at once
    if not encoded:
        return None
    names = {f"sha256:{hashlib.sha256(encoded).hexdigest()}"}
    for kind, value in told.get("subjectAltName", ()):
        if kind == "DNS":
            names.add(f"dns:{value}".lower())
    for relative in told.get("subject", ()):
        for key, value in relative:
            if key == "commonName":
                names.add(f"cn:{value}".lower())
    return frozenset(names)


class Admission:
    """The rules.

    Parameters
    ----------
    peers
        Whom we know; empty: everybody.
    certificates
        Name of a certificate -> AE titles, as in the settings; empty: any.
    classes
        What each right opens: SOP Class UIDs.
    turns
        Where the turns of an AE title are counted; a table that processes share makes its pace that of all of them.
    """

    def __init__(
        self,
        peers: Sequence[Peer] = (),
        certificates: Mapping[str, Sequence[str]] | None = None,
        classes: Mapping[Right, Collection[str]] | None = None,
        turns: Callable[[str], Turns] = lambda _title: OwnTurns(),
    ) -> None:
        self._peers = {peer.ae_title: peer for peer in peers}
        self._certificates = dict(certificates or {})
        self._classes = dict(classes or {})
        self._paces = {
            peer.ae_title: Pace(peer.max_instances_per_s, turns(peer.ae_title))
            for peer in peers
            if peer.max_instances_per_s is not None
        }
        self.max_associations = {
            peer.ae_title: peer.max_associations for peer in peers if peer.max_associations is not None
        }
        """AE title -> associations at once; who is not in it has no limit but the one that holds for all."""

    def refusal(self, calling_ae: str, address: str, names: Collection[str] | None) -> Refusal | None:
        """Return why a peer may not associate; None where it may.

        Parameters
        ----------
        names
            Of its certificate, `certificate_names`; None: it showed none, or comes without TLS.
        """
        if names is not None and self._certificates:
            titles = {title for name in names for title in self._certificates.get(name, ())}
            if calling_ae not in titles:
                return _unknown("certificate is not for this AE title")
        if not self._peers:
            return None
        peer = self._peers.get(calling_ae)
        if peer is None:
            return _unknown("calling AE")
        if not peer.comes_from(address):
            return _unknown("address is not one of this AE title")
        return None

    def forbidden(self, calling_ae: str) -> frozenset[str]:
        """Return the SOP classes that a peer may not use."""
        peer = self._peers.get(calling_ae)
        if peer is None:
            return frozenset()
        closed = [set(uids) for right, uids in self._classes.items() if right not in peer.may]
        return frozenset().union(*closed)

    def wait(self, calling_ae: str) -> None:
        """Let a sender wait that is faster than it may be; at once for all others."""
        pace = self._paces.get(calling_ae)
        if pace is not None:
            pace.wait()


class Turns(Protocol):
    """Who comes when."""

    def take(self, now: float, gap_s: float) -> float:
        """Take the next turn, `gap_s` before the one after it; return when it is, by the monotonic clock."""


class OwnTurns:
    """Turns of the threads of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free_at = -math.inf

    def take(self, now: float, gap_s: float) -> float:
        """Take the next turn."""
        with self._lock:
            turn = next_turn(self._free_at, now, gap_s)
            self._free_at = turn + gap_s
            return turn


def next_turn(free_at: float, now: float, gap_s: float) -> float:
    """Return the next turn where the one after the last is at `free_at`; up to a second's worth may have been saved up.

    A time that is further away than everybody's turns together was kept by another start of this machine.
    """
    if not free_at <= now + _MOST_WAITING * gap_s:
        return now
    return max(free_at, now - 1.0)


class Pace:
    """So many a second, evenly, over all who share the turns; nothing is refused, what comes too early waits.

    Parameters
    ----------
    per_s
        How many.
    turns
        Who comes when.
    clock, sleep
        Monotonic, in seconds.
    """

    def __init__(
        self,
        per_s: float,
        turns: Turns,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._gap_s = 1 / per_s
        self._turns = turns
        self._clock = clock
        self._sleep = sleep

    def wait(self) -> None:
        """Wait for the next turn."""
        now = self._clock()
        wait_s = self._turns.take(now, self._gap_s) - now
        if wait_s > 0:
            self._sleep(wait_s)


def _unknown(reason: str) -> Refusal:
    return Refusal(_PERMANENT, _SERVICE_USER, _CALLING_AE_NOT_RECOGNISED, reason)
