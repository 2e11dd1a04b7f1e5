"""What every broker does: the embedded one, the one in memory, RabbitMQ."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from gateway.broker import Broker, EmbeddedBroker, JobMessage
from gateway.job import Priority
from gateway.rabbitmq import RabbitBroker
from gateway.store import Store, jobs
from gateway.testing import MemoryBroker, MemoryQueues
from tests.services.process import HANGS_S
from tests.stores import add_study

KINDS = [
    ("embedded", "sqlite_store"),
    ("embedded", "postgres_store"),
    ("memory", "sqlite_store"),
    ("rabbitmq", "sqlite_store"),
]
TRACE = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
NOTHING_S = 0.4


@dataclass
class Setting:
    """A queue, ways to reach it, and jobs that wait in the database."""

    store: Store
    connect: Callable[[], Broker]

    def submit(self, broker: Broker, priority: Priority = "routine") -> str:
        """Make a job of a new study and publish it."""
        with self.store.write() as connection:
            uid = f"1.2.{time.monotonic_ns()}"
            add_study(connection, uid)
            job_id = jobs.create_job(
                connection,
                study_instance_uid=uid,
                study_revision=1,
                bundle="ct-lung",
                priority=priority,
                destinations=(),
                requested_by="dispatch",
                now=datetime.now(UTC),
                trace_context=TRACE,
            )
        broker.publish(JobMessage(job_id, priority, TRACE))
        return job_id

    def claim(self, job_id: str) -> bool:
        """Claim a job, as a worker does on a message."""
        with self.store.write() as connection:
            return jobs.claim(connection, job_id, "w", datetime.now(UTC), 60) is not None


def count(broker: Broker, expected: int) -> int:
    """Count what waits; RabbitMQ's number lags behind a little."""
    deadline = time.monotonic() + HANGS_S
    while broker.waiting() != expected and time.monotonic() < deadline:
        time.sleep(0.05)
    return broker.waiting()


@pytest.fixture(params=KINDS, ids="-on-".join)
def setting(request: pytest.FixtureRequest) -> Iterator[Setting]:
    """Give each kind of queue, empty."""
    kind, database = request.param
    store = request.getfixturevalue(database)
    opened: list[Broker] = []
    queues = MemoryQueues()

    def connect() -> Broker:
        broker: Broker
        if kind == "embedded":
            broker = EmbeddedBroker(store, poll_s=0.05)
        elif kind == "memory":
            broker = MemoryBroker(queues)
        else:
            broker = RabbitBroker(request.getfixturevalue("broker_url"), "test.jobs")
        opened.append(broker)
        return broker

    yield Setting(store, connect)
    for broker in opened:
        broker.close()


def test_a_message_arrives_with_all_that_it_says(setting: Setting) -> None:
    """Job, priority and trace context."""
    broker = setting.connect()
    job_id = setting.submit(broker, "stat")
    received = broker.receive(HANGS_S)

    assert received is not None
    assert received.message == JobMessage(job_id, "stat", TRACE)


def test_stat_comes_first_and_then_the_oldest(setting: Setting) -> None:
    """Whatever the order of publication."""
    broker = setting.connect()
    first, second = setting.submit(broker), setting.submit(broker)
    urgent = setting.submit(broker, "stat")
    assert count(broker, 3) == 3
    order = [received.message.job_id for _ in range(3) if (received := broker.receive(HANGS_S))]

    assert order == [urgent, first, second]


def test_nothing_comes_from_an_empty_queue(setting: Setting) -> None:
    """The wait is about as long as asked for."""
    begun = time.monotonic()
    received = setting.connect().receive(NOTHING_S)

    assert received is None
    assert NOTHING_S * 0.9 <= time.monotonic() - begun < NOTHING_S + HANGS_S


def test_what_is_claimed_and_acknowledged_does_not_come_again(setting: Setting) -> None:
    """To nobody; to acknowledge twice does no harm."""
    broker = setting.connect()
    job_id = setting.submit(broker)
    received = broker.receive(HANGS_S)
    assert received is not None
    assert setting.claim(job_id)
    received.ack()
    received.ack()

    assert count(broker, 0) == 0
    assert broker.receive(NOTHING_S) is None
    assert setting.connect().receive(NOTHING_S) is None


def test_what_is_in_hand_is_not_handed_out_again(setting: Setting) -> None:
    """A worker that loads the next job while one runs does not get the same one."""
    broker = setting.connect()
    setting.submit(broker)
    assert broker.receive(HANGS_S) is not None

    assert broker.receive(NOTHING_S) is None


def test_what_is_given_back_comes_again(setting: Setting) -> None:
    """Soon, and to whoever asks."""
    broker = setting.connect()
    job_id = setting.submit(broker)
    received = broker.receive(HANGS_S)
    assert received is not None
    received.requeue()
    again = broker.receive(HANGS_S)

    assert again is not None
    assert again.message.job_id == job_id


def test_what_a_closed_connection_held_comes_to_another(setting: Setting) -> None:
    """A worker that ends before it claimed loses nothing."""
    first, second = setting.connect(), setting.connect()
    job_id = setting.submit(first)
    assert first.receive(HANGS_S) is not None
    first.close()
    received = second.receive(HANGS_S)

    assert received is not None
    assert received.message.job_id == job_id


def test_closing_wakes_who_waits(setting: Setting) -> None:
    """A worker that is told to stop does not sit out its timeout."""
    broker = setting.connect()
    answers: list[object] = []
    waiter = threading.Thread(target=lambda: answers.append(broker.receive(10 * HANGS_S)))
    waiter.start()
    time.sleep(NOTHING_S)
    broker.close()
    waiter.join(HANGS_S)

    assert not waiter.is_alive()
    assert answers == [None]


def test_waiting_counts_both_priorities(setting: Setting) -> None:
    """What waits, not what was published."""
    broker = setting.connect()
    setting.submit(broker)
    setting.submit(broker, "stat")

    assert count(broker, 2) == 2


@pytest.mark.parametrize("clients", [1, 3])
def test_each_message_is_worked_on_once_by_many_threads(setting: Setting, clients: int) -> None:
    """Three threads over one connection or over three: twelve jobs, twelve claims."""
    brokers = [setting.connect() for _ in range(clients)]
    submitted = {setting.submit(brokers[0]) for _ in range(12)}
    done: list[str] = []
    deadline = time.monotonic() + HANGS_S

    def work(broker: Broker) -> None:
        while len(done) < len(submitted) and time.monotonic() < deadline:
            received = broker.receive(NOTHING_S)
            if received is None:
                continue
            if setting.claim(received.message.job_id):
                done.append(received.message.job_id)
            received.ack()

    threads = [threading.Thread(target=work, args=(brokers[number % clients],)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(done) == 12
    assert set(done) == submitted
    assert brokers[0].receive(NOTHING_S) is None
