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

from gateway.config.peers import SENDER, Peer, Right


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
_CALLING_AE_NOT_RECOGNISED, _CALLED_AE_NOT_RECOGNISED, _LOCAL_LIMIT = 3, 7, 2
_MOST_WAITING = 1000
"""Instances that may wait for their turn: one for each association that the settings allow."""


_UNKNOWN_CALLING = Refusal(_PERMANENT, _SERVICE_USER, _CALLING_AE_NOT_RECOGNISED, "calling AE")
_UNKNOWN_CALLED = Refusal(_PERMANENT, _SERVICE_USER, _CALLED_AE_NOT_RECOGNISED, "called AE")
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


def unknown_title(calling_ae: str, allowed_aes: Collection[str], called_ae: str, own_ae: str) -> Refusal | None:
    """Return which AE title is not known here; allowed ones that are empty are all."""
    if allowed_aes and calling_ae not in allowed_aes:
        return _UNKNOWN_CALLING
    return None if called_ae == own_ae else _UNKNOWN_CALLED


class Admission:
    """The rules.

    Parameters
    ----------
    peers
        Whom we know; empty: everybody.
    certificates
        Name of a certificate -> AE titles, as in the settings; a title that stands here comes with its certificate or
        not at all. Empty: any.
    classes
        What each right opens: SOP Class UIDs.
    turns
        Where the turns of an AE title are counted; a table that processes share makes its pace that of all of them.
    without_patient
        AE titles that get nothing that names a patient, whatever their peer may.
    """

    def __init__(
        self,
        peers: Sequence[Peer] = (),
        certificates: Mapping[str, Sequence[str]] | None = None,
        classes: Mapping[Right, Collection[str]] | None = None,
        turns: Callable[[str], Turns] = lambda _title: OwnTurns(),
        without_patient: Collection[str] = (),
    ) -> None:
        self._peers = {peer.ae_title: peer for peer in peers}
        self._certificates = dict(certificates or {})
        self._proven = frozenset(title for titles in self._certificates.values() for title in titles)
        self._classes = {right: frozenset(uids) for right, uids in (classes or {}).items()}
        self._without_patient = frozenset(without_patient)
        self._paces = {
            peer.ae_title: Pace(peer.max_instances_per_s, turns(peer.ae_title))
            for peer in peers
            if peer.max_instances_per_s is not None
        }
        self.max_associations = {
            peer.ae_title: peer.max_associations for peer in peers if peer.max_associations is not None
        }
        """AE title -> associations at once from an address; who is not in it has no limit but the one for all.

        Of each address, because a title is a name that anybody can use: who borrows it takes no place of its owner.
        """

    def may_come(self, address: str) -> bool:
        """Say whether any peer comes from an address, before it has said who it is."""
        return not self._peers or any(peer.comes_from(address) for peer in self._peers.values())

    def refusal(self, calling_ae: str, address: str, names: Collection[str] | None) -> Refusal | None:
        """Return why a peer may not associate; None where it may.

        Parameters
        ----------
        names
            Of its certificate, `certificate_names`; None: it showed none, or comes without TLS.
        """
        if names is None and calling_ae in self._proven:
            return _unknown("AE title comes without its certificate")
        if names is not None and self._certificates:
            titles = {title for name in names for title in self._certificates.get(name, ())}
            if calling_ae not in titles:
                return _unknown("certificate is not for this AE title")
        if not self._peers:
            return None
        peer = self._peers.get(calling_ae)
        if peer is None:
            return _UNKNOWN_CALLING
        if not peer.comes_from(address):
            return _unknown("address is not one of this AE title")
        return None

    def forbidden(self, calling_ae: str) -> frozenset[str]:
        """Return the SOP classes that a peer may not use."""
        rights = self._rights(calling_ae)
        closed = [set(uids) for right, uids in self._classes.items() if right not in rights]
        return frozenset().union(*closed)

    def refused_rights(self, calling_ae: str, proposed: Collection[str]) -> list[Right]:
        """Return the rights that a peer lacks for SOP classes that it proposes."""
        lacking = self._classes.keys() - self._rights(calling_ae)
        return sorted(right for right in lacking if not self._classes[right].isdisjoint(proposed))

    def advice(self, calling_ae: str) -> str:
        """Return what an operator does where a peer should have had a right."""
        if calling_ae in self._without_patient:
            return "the title of a destination with deidentify gets nothing that names a patient"
        return "name the title in [[peers]], with these rights in `may`"

    def _rights(self, calling_ae: str) -> set[Right]:
        peer = self._peers.get(calling_ae)
        rights = set(self._classes) if peer is None else set(peer.may)
        return rights & set(SENDER) if calling_ae in self._without_patient else rights

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
