"""Connections without an association: who may wait, and who goes first."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from gateway.receive.lobby import Lobby
from gateway.services import Counters

_OF_ADDRESS, _IN_ALL = 64, 256
CROWDED = 'hybridmed_connections_refused_total{reason="too many without an association"}'
UNKNOWN = 'hybridmed_connections_refused_total{reason="address of no peer"}'


class Visitors:
    """Connections whose thread closes them once they have been ended, as the receiver's do."""

    def __init__(self, lobby: Lobby) -> None:
        self.lobby = lobby
        self.stack = ExitStack()

    def enter(self, address: str) -> socket.socket:
        """Connect from an address."""
        ours, theirs = socket.socketpair()
        self.stack.enter_context(theirs)
        assert self.lobby.enter(ours, address)
        thread = threading.Thread(target=_close_at_end, args=(ours,))
        thread.start()
        self.stack.callback(thread.join)
        return ours

    def crowd(self, address: str, count: int) -> list[socket.socket]:
        """Connect so many times."""
        return [self.enter(address) for _ in range(count)]


def _close_at_end(ours: socket.socket) -> None:
    ours.recv(1)
    ours.close()


@pytest.fixture
def visitors() -> Iterator[Visitors]:
    """Visitors of a lobby for four associations."""
    made = Visitors(Lobby(4, lambda address: not address.startswith("203."), Counters()))
    with made.stack:
        yield made
        made.lobby.close()


def test_an_address_that_is_full_loses_its_oldest(visitors: Visitors) -> None:
    """Nobody else goes, and the newcomer is in."""
    other = visitors.enter("10.0.0.2")
    crowd = visitors.crowd("10.0.0.1", _OF_ADDRESS + 2)

    assert [peer.fileno() < 0 for peer in crowd] == [True, True, *[False] * _OF_ADDRESS]
    assert visitors.lobby.holds(other)
    assert visitors.lobby.counters.snapshot()[CROWDED] == 2


def test_a_full_lobby_loses_the_oldest_of_the_most_crowded_address(visitors: Visitors) -> None:
    """An address that comes late gets in at the cost of the crowd, not of those who came before it."""
    first = visitors.enter("10.0.0.9")
    crowd = visitors.crowd("10.0.0.1", _OF_ADDRESS)
    others = [visitors.enter(f"10.0.1.{number}") for number in range(_IN_ALL - _OF_ADDRESS - 1)]
    late = visitors.enter("10.0.0.8")

    assert crowd[0].fileno() < 0
    assert all(visitors.lobby.holds(peer) for peer in (first, late, *crowd[1:], *others))


def test_who_has_an_association_or_has_gone_takes_no_room(visitors: Visitors) -> None:
    """As many as there is room for, one after another: nobody is sent away."""
    for peer in visitors.crowd("10.0.0.1", _OF_ADDRESS):
        visitors.lobby.leave(peer)
        peer.shutdown(socket.SHUT_RDWR)
    held = visitors.crowd("10.0.0.1", _OF_ADDRESS)

    assert all(visitors.lobby.holds(peer) for peer in held)
    assert CROWDED not in visitors.lobby.counters.snapshot()


def test_a_connection_that_does_not_end_keeps_nobody_out(visitors: Visitors) -> None:
    """Its thread may be stuck: it is waited for a moment, and counts no more."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert visitors.lobby.enter(ours, "10.0.0.1")
        visitors.crowd("10.0.0.1", _OF_ADDRESS)

        assert not visitors.lobby.holds(ours)
        assert ours.fileno() >= 0


def test_an_address_of_no_peer_and_a_closed_lobby_let_nobody_in(visitors: Visitors) -> None:
    """Closing ends whoever waits; what has become of TLS by then ends, too."""
    waiting, securing = visitors.enter("10.0.0.1"), visitors.enter("10.0.0.2")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert not visitors.lobby.enter(ours, "203.0.113.1")
        visitors.lobby.exchange(securing, ours, "10.0.0.2")
        assert visitors.lobby.holds(ours)
        visitors.lobby.close()

        assert theirs.recv(1) == b""
        assert not visitors.lobby.holds(waiting)
        assert not visitors.lobby.enter(ours, "10.0.0.1")
    securing.shutdown(socket.SHUT_RDWR)
    assert visitors.lobby.counters.snapshot()[UNKNOWN] == 1
