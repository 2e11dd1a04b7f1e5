"""The queue of jobs on RabbitMQ: quorum queues, persistent messages, publisher confirms, reconnect for ever.

A thread of its own keeps the connection, so that heartbeats are answered while a job of an hour runs. Messages are
fetched one at a time when a worker asks, stat before routine, and never ahead of need: a message that a busy worker
holds would keep an idle one waiting.

RabbitMQ closes the channel of a delivery that stays unacknowledged too long (30 minutes by default) and gives the
message to someone else. As with every lost connection this does no harm: the second receiver finds the job claimed.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import pika
import structlog

from gateway.broker import JobMessage, Received
from gateway.errors import BrokerAwayError, ConfigurationError, GatewayError
from gateway.job import Priority
from gateway.rabbitmq_link import Link, ReconnectPolicy, Session

__all__ = ["RabbitBroker", "RabbitOptions", "ReconnectPolicy"]

log = structlog.get_logger()

_PRIORITIES: tuple[Priority, ...] = ("stat", "routine")
_LONGEST_DEAD_QUEUE = 10_000
_BETWEEN_NODES = r"\s*,\s*(?=amqps?://)"
"""A password may hold a comma."""
_PROBES = 3
"""Unanswered probes of an idle connection, after which the other side is gone."""


@dataclass(frozen=True, slots=True)
class RabbitOptions:
    """What only odd networks, and tests, change."""

    delivery_limit: int = 20
    """Deliveries of one message before it goes to `<prefix>.dead`; its job, which waits on, is published again."""
    poll_s: float = 0.1
    """Seconds between looks at empty queues."""
    heartbeat_s: int = 10
    """Of the connection; after two of them either side takes a silent other for gone."""
    vanished_s: int = 10
    """After which a broker that does not even confirm the packets sent to it is gone."""
    reconnect: ReconnectPolicy = field(default_factory=ReconnectPolicy)
    """Waits between tries to connect."""


@dataclass(frozen=True, slots=True)
class _RabbitReceived:
    """A delivery; it belongs to the session that it came on."""

    message: JobMessage
    _settle: Callable[[str], None]

    def ack(self) -> None:
        """Acknowledge; if the session has ended, RabbitMQ has given the message to someone else already."""
        self._settle("ack")

    def requeue(self) -> None:
        """Put it back; counts towards the delivery limit."""
        self._settle("requeue")


class RabbitBroker:
    """Queues `<prefix>.stat`, `<prefix>.routine` and `<prefix>.dead`; nothing connects before the first call.

    Parameters
    ----------
    url
        `amqp://user:password@host:port/vhost` or `amqps://…`, or several, separated by commas: the nodes of one
        cluster. Never logged.
    prefix
        Of the queue names.
    options
        Limits and times.
    """

    def __init__(self, url: str, prefix: str = "hybridmed.jobs", options: RabbitOptions | None = None) -> None:
        self._prefix = prefix
        self._options = options or RabbitOptions()
        dead = f"{self._prefix}.dead"
        routed: dict[str, object] = {
            "x-queue-type": "quorum",
            "x-delivery-limit": self._options.delivery_limit,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": dead,
        }
        queues = {dead: {"x-queue-type": "quorum", "x-max-length": _LONGEST_DEAD_QUEUE}}
        queues |= {self._queue(priority): routed for priority in _PRIORITIES}
        nodes = [_parameters(one, self._options) for one in re.split(_BETWEEN_NODES, url.strip())]
        self._link = Link(nodes, queues, self._options.reconnect)
        self._fetching = threading.Lock()

    def publish(self, message: JobMessage) -> None:
        """Return once a majority of the queue's members has the message on disk."""
        body = json.dumps({"job_id": message.job_id, "trace_context": dict(message.trace_context)}).encode()
        properties = pika.BasicProperties(
            delivery_mode=pika.DeliveryMode.Persistent.value,
            content_type="application/json",
            message_id=message.job_id,
        )
        name = self._queue(message.priority)
        self._link.call(lambda session, answer: session.publish(answer, name, body, properties))

    def receive(self, timeout_s: float) -> Received | None:
        """Return the next message, stat first; BrokerAwayError when the broker is away until the time is over."""
        deadline = time.monotonic() + timeout_s
        while not self._link.closing.is_set():
            wait_s = self._options.poll_s
            try:
                received = self._fetch()
            except BrokerAwayError:
                if time.monotonic() >= deadline:
                    raise
                wait_s = self._options.reconnect.first_s
            else:
                if received is not None:
                    return received
            remaining_s = deadline - time.monotonic()
            if remaining_s <= 0:
                return None
            self._link.closing.wait(min(wait_s, remaining_s))
        return None

    def waiting(self) -> int:
        """Return how many messages wait in both queues."""
        return sum(self._count(priority) for priority in _PRIORITIES)

    def close(self) -> None:
        """Disconnect; RabbitMQ gives what was not acknowledged to others."""
        self._link.close()

    def _queue(self, priority: Priority) -> str:
        return f"{self._prefix}.{priority}"

    def _count(self, priority: Priority) -> int:
        name = self._queue(priority)
        return int(self._link.call(lambda session, answer: session.count(answer, name)))

    def _fetch(self) -> Received | None:
        for priority in _PRIORITIES:
            # Counting first: a quorum queue writes every fetch to its log on disk, that of an empty queue too.
            with self._fetching:
                while self._count(priority):
                    received = self._get(priority)
                    if received is not None:
                        return received
        return None

    def _get(self, priority: Priority) -> Received | None:
        """Fetch one message; None where there was none after all, or none of ours."""
        sessions: list[Session] = []
        name = self._queue(priority)

        def start(session: Session, answer: Future[Any]) -> None:
            sessions.append(session)
            session.get(answer, name)

        fetched = self._link.call(start)
        if fetched is None:
            return None
        delivery_tag, body = fetched
        settle = self._settler(sessions[-1], delivery_tag)
        message = _parse(body, priority)
        if message is None:
            log.warning("broker.message_refused", queue=name, size=len(body))
            settle("refuse")
            return None
        return _RabbitReceived(message, settle)

    def _settler(self, received_on: Session, delivery_tag: int) -> Callable[[str], None]:
        unsettled = [delivery_tag]

        def settle(how: str) -> None:
            def start(session: Session, answer: Future[Any]) -> None:
                # Nothing to do where it is settled, or where the tag means another message now.
                delivery_tags = [unsettled.pop()] if session is received_on and unsettled else []
                session.settle(answer, delivery_tags, how)

            try:
                self._link.call(start)
            except GatewayError as error:
                log.info("broker.settle_lost", reason=str(error))

        return settle


def _parameters(url: str, options: RabbitOptions) -> pika.URLParameters:
    expected = "HYBRIDMED_BROKER_URL is not amqp://user:password@host:port/vhost"
    if not url.startswith(("amqp://", "amqps://")):
        raise ConfigurationError(expected)
    try:
        parameters = pika.URLParameters(url)
    except (ValueError, TypeError, KeyError, IndexError):
        raise ConfigurationError(expected) from None
    parameters.heartbeat = options.heartbeat_s
    parameters.connection_attempts = 1  # the link counts the tries
    parameters.socket_timeout = 5
    parameters.stack_timeout = 10
    parameters.blocked_connection_timeout = 30
    parameters.tcp_options = {
        "TCP_USER_TIMEOUT": options.vanished_s * 1000,
        "TCP_KEEPIDLE": options.vanished_s,
        "TCP_KEEPINTVL": max(1, options.vanished_s // _PROBES),
        "TCP_KEEPCNT": _PROBES,
    }
    parameters.client_properties = {"connection_name": "hybridmed"}
    return parameters


def _parse(body: bytes, priority: Priority) -> JobMessage | None:
    """Return the message, None where it is none of ours.

    Fields that we do not know are left alone: during a rolling upgrade newer programs publish too.
    """
    try:
        content = json.loads(body)
        return JobMessage(str(content["job_id"]), priority, dict(content.get("trace_context") or {}))
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
