"""The checkpoint that keeps an association's thread from answers that are waited for."""

import sys
import threading
from collections.abc import Iterator

import pytest

from gateway.calling import Checkpoint
from tests.services.process import HANGS_S

_ROUNDS = 5_000


class _Reactor(threading.Thread):
    """What an association's thread does: stop at the checkpoint, pass, take what came."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.checkpoint = Checkpoint(self)
        self.is_held = False
        self.is_ending = False
        self.passed = 0
        self.stolen = 0

    def run(self) -> None:
        while not self.is_ending:
            self.checkpoint.wait()
            self.passed += 1
            self.stolen += self.is_held


@pytest.fixture
def hasty_threads() -> Iterator[None]:
    """Threads that are interrupted at every chance."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("hasty_threads")
def test_a_thread_that_is_let_go_for_a_moment_takes_nothing_while_it_is_held() -> None:
    """Object after object is sent: between two of them the checkpoint opens for less than a turn of the processor."""
    reactor = _Reactor()
    reactor.start()

    for _ in range(_ROUNDS):
        reactor.checkpoint.clear()
        reactor.is_held = True
        sum(range(2000))  # the answer comes
        reactor.is_held = False
        reactor.checkpoint.set()
    reactor.is_ending = True
    reactor.join(HANGS_S)

    assert not reactor.is_alive()
    assert reactor.passed > 0
    assert reactor.stolen == 0


def test_a_thread_that_has_ended_is_not_waited_for() -> None:
    """An association may be aborted by the peer at any time."""
    reactor = _Reactor()
    reactor.is_ending = True
    reactor.start()
    reactor.join(HANGS_S)

    reactor.checkpoint.clear()

    assert not reactor.checkpoint.is_set()


def test_a_thread_may_hold_itself() -> None:
    """The association's thread releases when the network's time is over."""
    cleared = threading.Event()

    class Itself(_Reactor):
        def run(self) -> None:
            self.checkpoint.clear()
            cleared.set()

    Itself().start()

    assert cleared.wait(HANGS_S)
