"""The queue of jobs on RabbitMQ: quorum queues, persistent messages, publisher confirms, reconnect for ever.

One thread owns the connection: it answers heartbeats while a job of an hour runs, and does what the callers ask for.
Messages are fetched one at a time when a worker asks, stat before routine, and never ahead of need: a message that a
busy worker holds would keep an idle one waiting.

RabbitMQ closes the channel of a delivery that stays unacknowledged too long (30 minutes by default) and gives the
message to someone else. As with every lost connection this does no harm: the second receiver finds the job claimed.
"""

from __future__ import annotations

import contextlib
import json
import queue
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pika
import structlog
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import (
    AMQPError,
    ChannelClosedByBroker,
    ConnectionWrongStateError,
    ProbableAccessDeniedError,
    ProbableAuthenticationError,
    UnroutableError,
)

from gateway.broker import JobMessage, Received
from gateway.errors import BrokerAwayError, ConfigurationError, GatewayError
from gateway.job import Priority

log = structlog.get_logger()

T = TypeVar("T")

# ValueError: what pika 1.4 raises for a wait on a connection that has just closed.
_PIKA_ERRORS = (AMQPError, OSError, ValueError)
_PRECONDITION_FAILED = 406
_ANSWER_S = 30.0  # how long a caller waits for an answer of the broker
_IDLE_S = 1.0  # how long the connection's thread sleeps when nobody wakes it
_PRIORITIES: tuple[Priority, ...] = ("stat", "routine")


@dataclass(frozen=True, slots=True)
class ReconnectPolicy:
    """How long to wait between tries to connect; doubles, with jitter of a half."""

    first_s: float = 0.5
    limit_s: float = 30.0

    def wait_s(self, failures: int) -> float:
        """Return the wait after a number of failures in a row."""
        longest_s = min(self.first_s * (1 << min(failures - 1, 16)), self.limit_s)
        return longest_s * secrets.SystemRandom().uniform(0.5, 1.0)


@dataclass(slots=True)
class _Command:
    """Something the connection's thread is asked to do."""

    work: Callable[[BlockingChannel], Any]
    answer: Future[Any] = field(default_factory=Future)


@dataclass(frozen=True, slots=True)
class _RabbitReceived:
    """A delivery; it belongs to the channel that it came on."""

    message: JobMessage
    _settle: Callable[[bool], None]

    def ack(self) -> None:
        """Acknowledge; if the channel is gone, RabbitMQ has given the message to someone else already."""
        self._settle(True)

    def requeue(self) -> None:
        """Put it back; counts towards the delivery limit."""
        self._settle(False)


class RabbitBroker:
    """Queues `<prefix>.stat`, `<prefix>.routine` and `<prefix>.dead`; nothing connects before the first call.

    Parameters
    ----------
    url
        `amqp://user:password@host:port/vhost` or `amqps://…`; never logged.
    prefix
        Of the queue names.
    delivery_limit
        Deliveries of one message before it goes to `<prefix>.dead`; its job, which waits on, is published again.
    poll_s
        Seconds between looks at empty queues.
    heartbeat_s
        Of the connection.
    reconnect
        Waits between tries to connect.
    """

    def __init__(  # noqa: PLR0913 # each has a default that only tests and odd networks change
        self,
        url: str,
        prefix: str = "hybridmed.jobs",
        *,
        delivery_limit: int = 20,
        poll_s: float = 0.1,
        heartbeat_s: int = 30,
        reconnect: ReconnectPolicy | None = None,
    ) -> None:
        self._parameters = _parameters(url, heartbeat_s)
        self._where = f"RabbitMQ at {self._parameters.host}:{self._parameters.port}"
        self._prefix = prefix
        self._delivery_limit = delivery_limit
        self._poll_s = poll_s
        self._reconnect = reconnect or ReconnectPolicy()
        self._commands: queue.SimpleQueue[_Command] = queue.SimpleQueue()
        self._connection: pika.BlockingConnection | None = None
        self._generation = 0
        self._trouble: tuple[type[GatewayError], str] | None = None
        self._closing = threading.Event()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def publish(self, message: JobMessage) -> None:
        """Return once a majority of the queue's members has the message on disk."""
        body = json.dumps({"job_id": message.job_id, "trace_context": dict(message.trace_context)}).encode()
        properties = pika.BasicProperties(
            delivery_mode=pika.DeliveryMode.Persistent.value,
            content_type="application/json",
            message_id=message.job_id,
        )
        name = self._queue(message.priority)

        def work(channel: BlockingChannel) -> None:
            try:
                channel.basic_publish("", name, body, properties, mandatory=True)
            except UnroutableError:
                channel.close()  # the queue was deleted: connecting anew makes it again
                raise

        self._call(work)

    def receive(self, timeout_s: float) -> Received | None:
        """Return the next message, stat first; BrokerAwayError when the broker is away until the time is over."""
        deadline = time.monotonic() + timeout_s
        while not self._closing.is_set():
            wait_s = self._poll_s
            try:
                received = self._call(self._get)
            except BrokerAwayError:
                if time.monotonic() >= deadline:
                    raise
                wait_s = self._reconnect.first_s
            else:
                if received is not None:
                    return received
            remaining_s = deadline - time.monotonic()
            if remaining_s <= 0:
                return None
            self._closing.wait(min(wait_s, remaining_s))
        return None

    def waiting(self) -> int:
        """Return how many messages wait in both queues."""

        def count(channel: BlockingChannel) -> int:
            declared = [channel.queue_declare(self._queue(priority), passive=True) for priority in _PRIORITIES]
            return sum(answer.method.message_count for answer in declared)

        return self._call(count)

    def close(self) -> None:
        """Disconnect; RabbitMQ gives what was not acknowledged to others."""
        with self._starting:
            self._closing.set()
        self._wake()
        if self._thread is not None:
            self._thread.join(timeout=_ANSWER_S)

    def _queue(self, priority: Priority) -> str:
        return f"{self._prefix}.{priority}"

    def _get(self, channel: BlockingChannel) -> Received | None:
        for priority in _PRIORITIES:
            method, _, body = channel.basic_get(self._queue(priority))
            if method is None:
                continue
            message = _parse(body, priority)
            if message is None:
                log.warning("broker.message_refused", queue=self._queue(priority), size=len(body))
                channel.basic_reject(method.delivery_tag, requeue=False)
                continue
            return _RabbitReceived(message, self._settler(message, method.delivery_tag))
        return None

    def _settler(self, message: JobMessage, delivery_tag: int) -> Callable[[bool], None]:
        generation = self._generation
        unsettled = [delivery_tag]

        def settle(is_done: bool) -> None:
            def work(channel: BlockingChannel) -> None:
                if generation != self._generation or not unsettled:
                    return  # settled, or the tag means another message on the present channel
                unsettled.clear()
                if is_done:
                    channel.basic_ack(delivery_tag)
                else:
                    channel.basic_nack(delivery_tag, requeue=True)

            try:
                self._call(work)
            except GatewayError as error:
                log.info("broker.settle_lost", job_id=message.job_id, reason=str(error))

        return settle

    def _call(self, work: Callable[[BlockingChannel], T]) -> T:
        """Have the connection's thread do something and wait for it."""
        self._raise_trouble()
        self._ensure_thread()
        command = _Command(work)
        self._commands.put(command)
        self._wake()
        try:
            answer: T = command.answer.result(_ANSWER_S)
        except TimeoutError:
            if command.answer.cancel():
                raise BrokerAwayError(f"{self._where} did not answer within {_ANSWER_S:g} s") from None
            answer = command.answer.result()  # under way: ends with an answer or with the connection
        return answer

    def _raise_trouble(self) -> None:
        if self._closing.is_set():
            raise BrokerAwayError(f"the connection to {self._where} is closed")
        trouble = self._trouble
        if trouble is not None:
            raise trouble[0](trouble[1])

    def _ensure_thread(self) -> None:
        with self._starting:
            if self._closing.is_set():
                raise BrokerAwayError(f"the connection to {self._where} is closed")
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="rabbitmq", daemon=True)
                self._thread.start()

    def _wake(self) -> None:
        connection = self._connection
        if connection is None:
            return
        try:
            connection.add_callback_threadsafe(lambda: None)
        except ConnectionWrongStateError:
            return  # its thread is about to notice, and fails what is asked

    def _run(self) -> None:
        failures = 0
        while not self._closing.is_set():
            try:
                connection, channel = self._connect()
            except GatewayError as error:
                failures += 1
                wait_s = self._reconnect.wait_s(failures)
                log.warning("broker.away", reason=str(error), retry_s=round(wait_s, 1))
                self._fail(type(error), str(error))
                self._closing.wait(wait_s)
                continue
            failures = 0
            log.info("broker.connected", where=self._where)
            self._serve(connection, channel)
        self._fail(BrokerAwayError, f"the connection to {self._where} is closed")

    def _connect(self) -> tuple[pika.BlockingConnection, BlockingChannel]:
        try:
            connection = pika.BlockingConnection(self._parameters)
        except ProbableAuthenticationError:
            raise BrokerAwayError(f"{self._where} refuses the user or the password") from None
        except ProbableAccessDeniedError:
            raise BrokerAwayError(f"{self._where} refuses access to the virtual host") from None
        except _PIKA_ERRORS as error:
            raise BrokerAwayError(f"{self._where} does not answer: {type(error).__name__}") from None
        with contextlib.ExitStack() as on_failure:
            on_failure.callback(_close, connection)
            try:
                channel = self._open_channel(connection)
            except _PIKA_ERRORS as error:
                raise BrokerAwayError(f"{self._where} closed the connection: {type(error).__name__}") from None
            on_failure.pop_all()
        return connection, channel

    def _open_channel(self, connection: pika.BlockingConnection) -> BlockingChannel:
        channel = connection.channel()
        channel.confirm_delivery()
        dead = f"{self._prefix}.dead"
        routed = {
            "x-delivery-limit": self._delivery_limit,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": dead,
        }
        self._declare(channel, dead, {"x-max-length": 10_000})
        for priority in _PRIORITIES:
            self._declare(channel, self._queue(priority), routed)
        return channel

    def _declare(self, channel: BlockingChannel, name: str, arguments: Mapping[str, object]) -> None:
        try:
            channel.queue_declare(name, durable=True, arguments={"x-queue-type": "quorum", **arguments})
        except ChannelClosedByBroker as error:
            if error.reply_code != _PRECONDITION_FAILED:
                raise
            raise ConfigurationError(
                f"{self._where}: the queue {name!r} exists with other arguments: delete it, "
                "or set HYBRIDMED_BROKER_PREFIX to another prefix"
            ) from None

    def _serve(self, connection: pika.BlockingConnection, channel: BlockingChannel) -> None:
        """Do what is asked and answer heartbeats until the connection or the channel ends."""
        self._generation += 1
        self._connection = connection
        self._trouble = None
        try:
            while not self._closing.is_set() and channel.is_open:
                self._do_commands(channel)
                if channel.is_open:
                    connection.process_data_events(time_limit=_IDLE_S)
            if not self._closing.is_set():
                log.warning("broker.channel_closed", where=self._where)
        except _PIKA_ERRORS as error:
            log.warning("broker.lost", where=self._where, reason=type(error).__name__)
        finally:
            self._connection = None
            self._fail(BrokerAwayError, f"{self._where} closed the connection")
            _close(connection)

    def _do_commands(self, channel: BlockingChannel) -> None:
        while True:
            try:
                command = self._commands.get_nowait()
            except queue.Empty:
                return
            if not command.answer.set_running_or_notify_cancel():
                continue
            try:
                command.answer.set_result(command.work(channel))
            except _PIKA_ERRORS as error:
                reason = f"{self._where} did not do as asked: {type(error).__name__}"
                command.answer.set_exception(BrokerAwayError(reason))
                if not channel.is_open:
                    return
            except BaseException as error:  # this thread ends, the caller must not wait for it
                command.answer.set_exception(error)
                raise

    def _fail(self, kind: type[GatewayError], reason: str) -> None:
        """Remember why nothing works, and tell those who wait."""
        self._trouble = (kind, reason)
        while True:
            try:
                command = self._commands.get_nowait()
            except queue.Empty:
                return
            if command.answer.set_running_or_notify_cancel():
                command.answer.set_exception(kind(reason))


def _parameters(url: str, heartbeat_s: int) -> pika.URLParameters:
    expected = "HYBRIDMED_BROKER_URL is not amqp://user:password@host:port/vhost"
    if not url.startswith(("amqp://", "amqps://")):
        raise ConfigurationError(expected)
    try:
        parameters = pika.URLParameters(url)
    except (ValueError, TypeError, KeyError, IndexError):
        raise ConfigurationError(expected) from None
    parameters.heartbeat = heartbeat_s
    parameters.connection_attempts = 1  # we count the tries ourselves
    parameters.socket_timeout = 5
    parameters.stack_timeout = 10
    parameters.blocked_connection_timeout = _ANSWER_S
    parameters.client_properties = {"connection_name": "hybridmed"}
    return parameters


def _parse(body: bytes, priority: Priority) -> JobMessage | None:
    """Return the message, None where it is none of ours."""
    try:
        content = json.loads(body)
        return JobMessage(str(content["job_id"]), priority, dict(content.get("trace_context") or {}))
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _close(connection: pika.BlockingConnection) -> None:
    with contextlib.suppress(*_PIKA_ERRORS):
        if connection.is_open:
            connection.close()
