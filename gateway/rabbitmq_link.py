"""A connection to RabbitMQ that is kept up by a thread of its own, and what callers on any thread ask of it.

Every question has a time limit: a broker that lets clients in but does not answer (a quorum queue without a leader)
is treated as away, and the connection is made anew. Where the broker is a cluster, each new connection goes to the
next of its nodes.
"""

from __future__ import annotations

import contextlib
import itertools
import queue
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pika
import structlog
from pika import spec
from pika.channel import Channel
from pika.exceptions import (
    ChannelClosedByBroker,
    ConnectionWrongStateError,
    ProbableAccessDeniedError,
    ProbableAuthenticationError,
)

from gateway.errors import BrokerAwayError, ConfigurationError, GatewayError

log = structlog.get_logger()

_PRECONDITION_FAILED = 406
_ANSWER_S = 30.0
_BLOCKED = "takes no messages: it is short of memory or disk"

Queues = Mapping[str, Mapping[str, object]]
"""Name -> arguments of the declaration."""


@dataclass(frozen=True, slots=True)
class ReconnectPolicy:
    """How long to wait between tries to connect; doubles, with jitter of a half."""

    first_s: float = 0.5
    limit_s: float = 5.0

    def wait_s(self, failures: int) -> float:
        """Return the wait after a number of failures in a row."""
        longest_s = min(self.first_s * (1 << min(max(failures - 1, 0), 16)), self.limit_s)
        return longest_s * secrets.SystemRandom().uniform(0.5, 1.0)


class Session:
    """One connection from its start to its end, with a channel and declared queues; lives on the link's thread.

    Parameters
    ----------
    parameters
        Of the connection.
    queues
        Declared, durable, before anything else is done.
    on_ready
        Called once what is asked can be done.
    """

    def __init__(self, parameters: pika.ConnectionParameters, queues: Queues, on_ready: Callable[[], None]) -> None:
        self.is_ready = False
        self.trouble: tuple[type[GatewayError], str] = (BrokerAwayError, "closed the connection")
        self._undeclared = list(queues.items())
        self._declaring = ""
        self._on_ready = on_ready
        self._channel: Channel | None = None
        self._pending: set[Future[Any]] = set()
        self._published = 0
        self._unconfirmed: dict[int, tuple[str, Future[Any]]] = {}
        self._getting: Future[Any] | None = None
        self._ending = threading.Lock()
        self._is_ended = False
        self._connection = pika.SelectConnection(
            parameters,
            on_open_callback=lambda connection: connection.channel(on_open_callback=self._on_channel),
            on_open_error_callback=self._on_open_error,
            on_close_callback=lambda *_: self._stop_soon(),
        )
        self._is_blocked = False
        self._connection.add_on_connection_blocked_callback(self._on_blocked)
        self._connection.add_on_connection_unblocked_callback(self._on_unblocked)

    def run(self) -> None:
        """Serve until the connection ends; whoever still waits for an answer is told."""
        try:
            self._connection.ioloop.start()
        finally:
            with self._ending:
                self._is_ended = True
                self._connection.ioloop.close()
            for answer in list(self._pending):
                self._fail(answer, *self.trouble)

    def schedule(self, work: Callable[[], None]) -> None:
        """Have the link's thread do something soon; from any thread, nothing once the session has ended."""
        with self._ending:
            if not self._is_ended:
                self._connection.ioloop.add_callback_threadsafe(work)

    def close(self) -> None:
        """Begin to end the session."""
        with contextlib.suppress(ConnectionWrongStateError):  # it is ending already
            self._connection.close()

    def publish(self, answer: Future[Any], name: str, body: bytes, properties: pika.BasicProperties) -> None:
        """Publish to a queue; answered when the broker has confirmed."""
        self._pending.add(answer)
        if self._is_blocked:
            self._fail(answer, BrokerAwayError, _BLOCKED)
            return
        self._published += 1
        self._unconfirmed[self._published] = (properties.message_id, answer)
        self._open_channel.basic_publish("", name, body, properties, mandatory=True)

    def get(self, answer: Future[Any], name: str) -> None:
        """Fetch a message; answered with (delivery tag, body) or None. One at a time."""
        self._pending.add(answer)
        self._getting = answer
        self._open_channel.basic_get(name, lambda _channel, method, _, body: self._on_got((method.delivery_tag, body)))

    def count(self, answer: Future[Any], name: str) -> None:
        """Count the messages that wait; answered with a number."""
        self._pending.add(answer)
        self._open_channel.queue_declare(
            name, passive=True, callback=lambda frame: self._succeed(answer, frame.method.message_count)
        )

    def settle(self, answer: Future[Any], delivery_tags: Sequence[int], how: str) -> None:
        """Acknowledge ('ack'), give back ('requeue') or refuse ('refuse') messages; answered at once."""
        self._pending.add(answer)
        for delivery_tag in delivery_tags:
            if how == "ack":
                self._open_channel.basic_ack(delivery_tag)
            else:
                self._open_channel.basic_nack(delivery_tag, requeue=how == "requeue")
        self._succeed(answer, None)

    @property
    def _open_channel(self) -> Channel:
        if self._channel is None or not self._channel.is_open:
            raise ConnectionWrongStateError("the channel is closed")
        return self._channel

    def _on_open_error(self, _connection: pika.SelectConnection, error: BaseException | str) -> None:
        if isinstance(error, ProbableAuthenticationError):
            self.trouble = (BrokerAwayError, "refuses the user or the password")
        elif isinstance(error, ProbableAccessDeniedError):
            self.trouble = (BrokerAwayError, "refuses access to the virtual host")
        else:
            self.trouble = (BrokerAwayError, f"does not answer: {type(error).__name__}")
        self._stop_soon()

    def _on_blocked(self, _connection: object, _frame: object) -> None:
        """Tell those who wait for a confirm that none comes soon; a message that gets through later does no harm."""
        self._is_blocked = True
        for _, answer in self._unconfirmed.values():
            self._fail(answer, BrokerAwayError, _BLOCKED)

    def _on_unblocked(self, _connection: object, _frame: object) -> None:
        self._is_blocked = False

    def _stop_soon(self) -> None:
        ioloop = self._connection.ioloop
        ioloop.add_callback_threadsafe(ioloop.stop)  # after what is due already: closing the socket

    def _on_channel(self, channel: Channel) -> None:
        self._channel = channel
        channel.add_on_close_callback(self._on_channel_close)
        channel.add_on_return_callback(self._on_return)
        channel.add_callback(lambda _: self._on_got(None), [spec.Basic.GetEmpty], one_shot=False)
        channel.confirm_delivery(self._on_confirm, callback=self._declare_next)

    def _declare_next(self, _frame: object) -> None:
        if not self._undeclared:
            self.is_ready = True
            self._on_ready()
            return
        self._declaring, arguments = self._undeclared.pop(0)
        self._open_channel.queue_declare(
            self._declaring, durable=True, arguments=dict(arguments), callback=self._declare_next
        )

    def _on_channel_close(self, _channel: Channel, reason: BaseException) -> None:
        if isinstance(reason, ChannelClosedByBroker):
            self.trouble = (BrokerAwayError, f"closed the channel ({reason.reply_code})")
            if reason.reply_code == _PRECONDITION_FAILED and not self.is_ready:
                sentence = f"has a queue {self._declaring!r} with other arguments: delete it, "
                self.trouble = (ConfigurationError, sentence + "or set HYBRIDMED_BROKER_PREFIX to another prefix")
        self.close()

    def _on_confirm(self, frame: Any) -> None:
        last: int = frame.method.delivery_tag
        tags = [tag for tag in self._unconfirmed if tag <= last] if frame.method.multiple else [last]
        for tag in tags:
            _, answer = self._unconfirmed.pop(tag, ("", None))
            if answer is None:
                continue
            if isinstance(frame.method, spec.Basic.Ack):
                self._succeed(answer, None)
            else:
                self._fail(answer, BrokerAwayError, "did not take the message")

    def _on_return(self, _channel: Channel, _method: object, properties: pika.BasicProperties, _body: bytes) -> None:
        for message_id, answer in self._unconfirmed.values():
            if message_id == properties.message_id:
                self._fail(answer, BrokerAwayError, "has no queue for the message")
        self.trouble = (BrokerAwayError, "had no queue for a message")
        self.close()  # connecting anew declares it

    def _on_got(self, message: tuple[int, bytes] | None) -> None:
        answer, self._getting = self._getting, None
        if answer is not None:
            self._succeed(answer, message)

    def _succeed(self, answer: Future[Any], value: object) -> None:
        if answer in self._pending:
            self._pending.discard(answer)
            if answer.set_running_or_notify_cancel():
                answer.set_result(value)

    def _fail(self, answer: Future[Any], kind: type[GatewayError], reason: str) -> None:
        if answer in self._pending:
            self._pending.discard(answer)
            fail(answer, kind, reason)


@dataclass(slots=True)
class _Command:
    """Something a session is asked to do."""

    start: Callable[[Session, Future[Any]], None]
    answer: Future[Any] = field(default_factory=Future)


class Link:
    """Sessions one after the other, for ever; nothing connects before the first call.

    Parameters
    ----------
    nodes
        Parameters of a connection to each node of the cluster, which are taken in turn, in an order of this process's
        own; one, where there is no cluster.
    queues
        Declared at each start.
    reconnect
        Waits between tries.
    """

    def __init__(self, nodes: Sequence[pika.ConnectionParameters], queues: Queues, reconnect: ReconnectPolicy) -> None:
        self.where = f"RabbitMQ at {', '.join(map(_address, nodes))}"
        self.closing = threading.Event()
        self._nodes = secrets.SystemRandom().sample(nodes, len(nodes))
        self._queues = queues
        self._reconnect = reconnect
        self._commands: queue.SimpleQueue[_Command] = queue.SimpleQueue()
        self._session: Session | None = None
        self._trouble: tuple[type[GatewayError], str] | None = None
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def call(self, start: Callable[[Session, Future[Any]], None]) -> Any:
        """Ask the session, once there is one, and wait for the answer.

        Raises
        ------
        BrokerAwayError
            There is no connection, it was lost, or the answer did not come in time.
        ConfigurationError
            A queue exists with other arguments.
        """
        self._ensure_thread()
        trouble = self._trouble
        if trouble is not None:
            raise trouble[0](f"{self.where} {trouble[1]}")
        command = _Command(start)
        self._commands.put(command)
        session = self._session
        if session is not None:
            session.schedule(lambda: self._do_commands(session))
        try:
            return command.answer.result(_ANSWER_S)
        except TimeoutError:
            if not command.answer.cancel():
                return command.answer.result()
            late = f"did not answer within {_ANSWER_S:g} s"
            if session is not None:
                session.schedule(session.close)
            raise BrokerAwayError(f"{self.where} {late}") from None

    def close(self) -> None:
        """Disconnect."""
        with self._starting:
            self.closing.set()
        session = self._session
        if session is not None:
            session.schedule(session.close)
        if self._thread is not None:
            self._thread.join(timeout=_ANSWER_S)

    def _ensure_thread(self) -> None:
        with self._starting:
            if self.closing.is_set():
                raise BrokerAwayError(f"the connection to {self.where} is closed")
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="rabbitmq", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        failures = 0
        for node in itertools.cycle(self._nodes):
            if self.closing.is_set():
                break
            session = Session(node, self._queues, partial(self._on_ready, node))
            self._session = session
            session.run()
            self._session = None
            failures = 1 if session.is_ready else failures + 1
            self._after(node, session.trouble, failures)
        self._fail_commands(BrokerAwayError, "is disconnected")

    def _after(self, node: pika.ConnectionParameters, trouble: tuple[type[GatewayError], str], failures: int) -> None:
        """Wait for the next try; those who ask are told once no node is left to try, and wait until then."""
        rounds, others = divmod(failures, len(self._nodes))
        if not others:
            self._fail_commands(*trouble)
        if not self.closing.is_set():
            wait_s = self._reconnect.wait_s(1 if others else rounds)
            log.warning("broker.away", where=_address(node), reason=trouble[1], retry_s=round(wait_s, 1))
            self.closing.wait(wait_s)

    def _on_ready(self, node: pika.ConnectionParameters) -> None:
        self._trouble = None
        log.info("broker.connected", where=_address(node))
        if self._session is not None:
            self._do_commands(self._session)

    def _do_commands(self, session: Session) -> None:
        while session.is_ready:
            try:
                command = self._commands.get_nowait()
            except queue.Empty:
                return
            if command.answer.cancelled():
                continue
            try:
                command.start(session, command.answer)
            except ConnectionWrongStateError:
                fail(command.answer, BrokerAwayError, "closed the connection")
                return

    def _fail_commands(self, kind: type[GatewayError], reason: str) -> None:
        """Remember why nothing works, and tell those who wait."""
        self._trouble = (kind, reason)
        while True:
            try:
                command = self._commands.get_nowait()
            except queue.Empty:
                return
            fail(command.answer, kind, f"{self.where} {reason}")


def _address(node: pika.ConnectionParameters) -> str:
    return f"{node.host}:{node.port}"


def fail(answer: Future[Any], kind: type[GatewayError], reason: str) -> None:
    """Answer with an error, where anyone still waits and nobody has answered."""
    if not answer.done() and answer.set_running_or_notify_cancel():
        answer.set_exception(kind(reason))
