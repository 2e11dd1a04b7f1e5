"""Connections without an association yet: how many may wait, and who goes first when it gets crowded.

Until an A-ASSOCIATE-RQ has been accepted anybody can be at the other end, so such a connection takes no association's
place. Each costs a thread or two: a crowd is bounded, and never keeps out another address.
"""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Callable

import structlog

from gateway.audit.acts import refused_node
from gateway.audit.trail import record
from gateway.services import Counters

log = structlog.get_logger()

_LEAST_OF_ADDRESS = 64
_LEAST_IN_ALL = 256
_GOES_S = 0.1
"""How long a newcomer waits for the end of the one that has to go."""
_LOOK_S = 0.002
_TOLD_EVERY_S = 60.0
"""A flood must fill neither log nor trail: one line for each reason, the counter tells the rest."""


class Lobby:
    """The connections that have not negotiated, of all ports of a receiver.

    Parameters
    ----------
    max_associations
        Of everybody: so many may come from one address at once, and twice as many in all.
    may_come
        Says whether an address is one of a peer's.
    counters
        Count those who are refused or sent away, or end without a word.
    """

    def __init__(self, max_associations: int, may_come: Callable[[str], bool], counters: Counters) -> None:
        self._most_of_address = max(_LEAST_OF_ADDRESS, max_associations)
        self._most_in_all = max(_LEAST_IN_ALL, 2 * max_associations)
        self._may_come = may_come
        self.counters = counters
        self._addresses: dict[socket.socket, str] = {}  # oldest first
        self._lock = threading.Lock()
        self._is_closed = False
        self._told_at: dict[str, float] = {}

    def enter(self, peer: socket.socket, address: str) -> bool:
        """Let a new connection in, at the cost of another where it is full; False where it may not come."""
        if not self._may_come(address):
            self._tell("address of no peer", address)
            return False
        while (oldest := self._in_the_way(address)) is not None:
            self._send_away(oldest)
        with self._lock:
            if not self._is_closed:
                self._addresses[peer] = address
            return not self._is_closed

    def exchange(self, peer: socket.socket, secured: socket.socket, address: str) -> None:
        """Know a connection by the socket that speaks TLS on it."""
        with self._lock:
            self._addresses.pop(peer, None)
            if self._is_closed:
                end_quietly(secured)
            else:
                self._addresses[secured] = address

    def leave(self, peer: socket.socket | None) -> None:
        """Forget a connection that has its association; one that was closed need not leave."""
        with self._lock:
            if peer is not None:
                self._addresses.pop(peer, None)

    def holds(self, peer: socket.socket) -> bool:
        """Say whether a connection may still wait."""
        with self._lock:
            return peer in self._addresses

    def close(self) -> None:
        """End all connections, and let no more in."""
        with self._lock:
            self._is_closed = True
            for peer in self._addresses:
                end_quietly(peer)
            self._addresses.clear()

    def _in_the_way(self, address: str) -> socket.socket | None:
        """Return who goes first: the oldest of this address where that has its share, of the most crowded one else."""
        with self._lock:
            self._addresses = {peer: where for peer, where in self._addresses.items() if peer.fileno() >= 0}
            crowds = Counter(self._addresses.values())
            if crowds[address] >= self._most_of_address:
                crowded = address
            elif len(self._addresses) >= self._most_in_all:
                crowded = crowds.most_common(1)[0][0]
            else:
                return None
            return next(peer for peer, where in self._addresses.items() if where == crowded)

    def _send_away(self, peer: socket.socket) -> None:
        """End a connection; its own thread closes it, and is waited for so that threads stay bounded, too."""
        with self._lock:
            address = self._addresses.pop(peer, "")
        end_quietly(peer)
        deadline = time.monotonic() + _GOES_S
        while peer.fileno() >= 0 and time.monotonic() < deadline:
            time.sleep(_LOOK_S)
        self._tell("too many without an association", address)

    def _tell(self, reason: str, address: str) -> None:
        self.counters.add(f'hybridmed_connections_refused_total{{reason="{reason}"}}')
        now = time.monotonic()
        if now - self._told_at.get(reason, -_TOLD_EVERY_S) >= _TOLD_EVERY_S:
            self._told_at[reason] = now
            log.warning("connection.refused", address=address, reason=reason)
            record(refused_node("", address, reason))


def end_quietly(peer: socket.socket) -> None:
    """End a connection both ways, of TLS too; no matter if it has ended already."""
    try:
        socket.socket.shutdown(peer, socket.SHUT_RDWR)  # that of SSLSocket would take its state from whoever reads
    except OSError:
        return
