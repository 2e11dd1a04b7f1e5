"""Parts for tests that keep the contracts of the real ones without a service, and pass their tests."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from gateway.broker import JobMessage, Received
from gateway.errors import BrokerAwayError
from gateway.job import Priority

_PRIORITIES: tuple[Priority, ...] = ("stat", "routine")


class MemoryQueues:
    """What a broker keeps: messages that wait, by priority. Several `MemoryBroker`s may share one."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.waiting: dict[Priority, deque[JobMessage]] = {priority: deque() for priority in _PRIORITIES}
        self.is_away = False

    def stop(self) -> None:
        """Answer nobody until `start`; what waits is kept."""
        with self.changed:
            self.is_away = True
            self.changed.notify_all()

    def start(self) -> None:
        """Answer again."""
        with self.changed:
            self.is_away = False
            self.changed.notify_all()

    def lose_all(self) -> None:
        """Forget what waits, as a broker does whose disk was replaced."""
        with self.changed:
            for messages in self.waiting.values():
                messages.clear()


@dataclass(frozen=True, slots=True)
class _MemoryReceived:
    message: JobMessage
    _settle: Callable[[bool], None]

    def ack(self) -> None:
        """Take it off the queue."""
        self._settle(False)

    def requeue(self) -> None:
        """Give it back."""
        self._settle(True)


class MemoryBroker:
    """A broker in this process.

    Parameters
    ----------
    queues
        Shared with other brokers; new ones by default.
    """

    def __init__(self, queues: MemoryQueues | None = None) -> None:
        self.queues = queues or MemoryQueues()
        self._in_hand: dict[int, JobMessage] = {}
        self._next_tag = 0
        self._is_closed = False

    def publish(self, message: JobMessage) -> None:
        """Keep the message; BrokerAwayError while stopped."""
        with self.queues.changed:
            self._require_present()
            self.queues.waiting[message.priority].append(message)
            self.queues.changed.notify()

    def receive(self, timeout_s: float) -> Received | None:
        """Return the next message, stat first."""
        deadline = time.monotonic() + timeout_s
        with self.queues.changed:
            while not self._is_closed:
                message = None if self.queues.is_away else self._next()
                if message is not None:
                    return self._hand_out(message)
                remaining_s = deadline - time.monotonic()
                if remaining_s <= 0:
                    self._require_present()
                    return None
                self.queues.changed.wait(remaining_s)
        return None

    def waiting(self) -> int:
        """Return how many messages wait."""
        with self.queues.changed:
            self._require_present()
            return sum(map(len, self.queues.waiting.values()))

    def close(self) -> None:
        """Give back what is in hand."""
        with self.queues.changed:
            self._is_closed = True
            for tag in list(self._in_hand):
                self._put_down(tag, is_given_back=True)
            self.queues.changed.notify_all()

    def _next(self) -> JobMessage | None:
        return next((messages.popleft() for messages in self.queues.waiting.values() if messages), None)

    def _hand_out(self, message: JobMessage) -> Received:
        self._next_tag += 1
        tag = self._next_tag
        self._in_hand[tag] = message

        def settle(is_given_back: bool) -> None:
            with self.queues.changed:
                self._put_down(tag, is_given_back=is_given_back)

        return _MemoryReceived(message, settle)

    def _put_down(self, tag: int, *, is_given_back: bool) -> None:
        message = self._in_hand.pop(tag, None)
        if message is not None and is_given_back:
            self.queues.waiting[message.priority].append(message)
            self.queues.changed.notify()

    def _require_present(self) -> None:
        if self.queues.is_away or self._is_closed:
            raise BrokerAwayError("the broker in memory is stopped")
