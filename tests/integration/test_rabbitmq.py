"""What RabbitMQ does beyond the contract: faults, limits, other people's queues."""

import json
import logging
import time
from collections.abc import Iterator

import pika
import pytest

from gateway.broker import JobMessage, Received
from gateway.errors import BrokerAwayError, ConfigurationError
from gateway.rabbitmq import RabbitBroker, RabbitOptions, ReconnectPolicy
from tests.services import rabbitmq
from tests.services.process import free_port, wait_until

QUICK = RabbitOptions(reconnect=ReconnectPolicy(first_s=0.1, limit_s=0.5))
SOON_S = 120.0
"""After which it hangs: no measure of what is fast enough."""
AT_ONCE_S = 25.0
"""Less than any limit that would end the wait otherwise, with a busy computer's share."""
NEW_QUEUE_S = 6.0  # RabbitMQ 3.10 writes the membership of a new quorum queue to disk only after seconds


@pytest.fixture
def broker(broker_url: str) -> Iterator[RabbitBroker]:
    """Give a broker on an empty virtual host."""
    opened = RabbitBroker(broker_url, "t", RabbitOptions(delivery_limit=2, reconnect=QUICK.reconnect))
    yield opened
    opened.close()


def get(broker: RabbitBroker) -> Received:
    """Receive a message that must come."""
    received = broker.receive(SOON_S)
    assert received is not None
    return received


def wait_published(broker: RabbitBroker, message: JobMessage) -> None:
    """Publish as the relay does: until it is confirmed."""
    deadline = time.monotonic() + SOON_S
    while True:
        try:
            broker.publish(message)
        except BrokerAwayError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        else:
            return


def in_dead_queue(url: str) -> bytes | None:
    """Take a message from the dead queue, waiting a little for it."""
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    deadline = time.monotonic() + SOON_S
    while True:
        _, _, body = channel.basic_get("t.dead", auto_ack=True)
        if body is not None or time.monotonic() > deadline:
            connection.close()
            return body
        time.sleep(0.1)


def test_messages_outlive_a_stop_and_the_client_comes_back_by_itself(
    private_rabbitmq: rabbitmq.PrivateRabbitMQ | rabbitmq.ContainerRabbitMQ,
) -> None:
    """While it is away publishing fails at once; afterwards both old and new messages arrive; held ones come again."""
    broker = RabbitBroker(private_rabbitmq.url, "t", QUICK)
    broker.publish(JobMessage("kept"))
    broker.publish(JobMessage("held", "stat"))
    held = get(broker)
    private_rabbitmq.stop()
    with pytest.raises(BrokerAwayError):
        broker.publish(JobMessage("while away"))
    with pytest.raises(BrokerAwayError):
        broker.receive(0.5)
    held.ack()
    private_rabbitmq.start()
    wait_published(broker, JobMessage("after"))
    wait_until(lambda: broker.waiting() == 3, SOON_S, "all three wait: queues come back one by one")
    order = []
    for _ in range(3):
        received = get(broker)
        order.append(received.message.job_id)
        received.ack()
    is_empty = broker.receive(0.5) is None
    broker.close()

    assert order == ["held", "kept", "after"]
    assert is_empty


def test_a_confirmed_message_outlives_a_power_cut(
    private_rabbitmq: rabbitmq.PrivateRabbitMQ | rabbitmq.ContainerRabbitMQ,
) -> None:
    """What `publish` returned for is there after kill -9."""
    broker = RabbitBroker(private_rabbitmq.url, "t", QUICK)
    broker.publish(JobMessage("worked on", "stat"))
    get(broker).ack()
    time.sleep(NEW_QUEUE_S)
    broker.publish(JobMessage("confirmed"))
    private_rabbitmq.kill()
    private_rabbitmq.start()
    received = broker.receive(SOON_S)
    broker.close()

    assert received is not None
    assert received.message.job_id == "confirmed"


def test_a_broker_short_of_disk_says_so_and_takes_messages_afterwards(
    private_rabbitmq: rabbitmq.PrivateRabbitMQ | rabbitmq.ContainerRabbitMQ,
) -> None:
    """Its alarm is an error with the reason, at once and not after a time limit; what is published later arrives."""
    broker = RabbitBroker(private_rabbitmq.url, "t", QUICK)
    wait_published(broker, JobMessage("before"))
    get(broker).ack()

    private_rabbitmq.rabbitmqctl("set_disk_free_limit", "900000GB")
    began = time.monotonic()
    with pytest.raises(BrokerAwayError, match="short of memory or disk"):
        broker.publish(JobMessage("meanwhile"))
    with pytest.raises(BrokerAwayError, match="short of memory or disk"):
        broker.publish(JobMessage("meanwhile"))
    took_s = time.monotonic() - began
    private_rabbitmq.rabbitmqctl("set_disk_free_limit", "1MB")
    wait_published(broker, JobMessage("afterwards"))

    seen = set()
    while "afterwards" not in seen:
        received = get(broker)
        seen.add(received.message.job_id)
        received.ack()
    assert seen <= {"meanwhile", "afterwards"}
    assert took_s < AT_ONCE_S
    broker.close()


def test_a_delivery_unacknowledged_for_too_long_does_no_harm(
    private_rabbitmq: rabbitmq.PrivateRabbitMQ | rabbitmq.ContainerRabbitMQ,
) -> None:
    """RabbitMQ closes the channel and hands the message out again; the late acknowledgement is void."""
    private_rabbitmq.rabbitmqctl("eval", "application:set_env(rabbit, consumer_timeout, 1000).")
    private_rabbitmq.rabbitmqctl("eval", "application:set_env(rabbit, channel_tick_interval, 500).")
    broker = RabbitBroker(private_rabbitmq.url, "t", QUICK)
    broker.publish(JobMessage("long"))
    slow = get(broker)
    again = get(broker)
    slow.ack()
    again.ack()
    broker.publish(JobMessage("next"))
    following = get(broker)
    while following.message.job_id == "long":  # our acknowledgement was late, too, on a busy computer
        following.ack()
        following = get(broker)
    broker.close()

    assert again.message.job_id == "long"
    assert following.message.job_id == "next"


def test_heartbeats_are_answered_while_nobody_calls(broker_url: str) -> None:
    """A worker busy for longer than the heartbeat keeps its connection and its message."""
    broker = RabbitBroker(broker_url, "t", RabbitOptions(heartbeat_s=3))
    other = RabbitBroker(broker_url, "t")
    broker.publish(JobMessage("long"))
    received = get(broker)
    time.sleep(10)
    came_again = other.receive(0.5)
    received.ack()
    is_empty = other.receive(0.5) is None
    broker.close()
    other.close()

    assert came_again is None
    assert is_empty


def test_an_unreachable_broker_is_said_at_once_and_without_the_password(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Neither error nor log line holds the password."""
    caplog.set_level(logging.DEBUG)
    broker = RabbitBroker(f"amqp://user:s3cret@127.0.0.1:{free_port()}/", options=QUICK)
    begun = time.monotonic()
    with pytest.raises(BrokerAwayError, match=r"RabbitMQ at 127\.0\.0\.1:[0-9]+ does not answer") as caught:
        broker.publish(JobMessage("x"))
    took_s = time.monotonic() - begun
    broker.close()

    assert took_s < AT_ONCE_S
    assert "s3cret" not in str(caught.value) + capsys.readouterr().out + caplog.text
    with pytest.raises(BrokerAwayError, match="closed"):
        broker.publish(JobMessage("x"))


def test_of_several_addresses_the_one_that_answers_is_taken(broker_url: str) -> None:
    """Spaces between them do no harm, nor does a comma in a password; an error names all of them."""
    away = f"amqp://user:with,comma@127.0.0.1:{free_port()}/"
    broker = RabbitBroker(f"{away}, {broker_url} ,{away}", "t", QUICK)
    broker.publish(JobMessage("x"))
    received = get(broker)
    received.ack()
    broker.close()

    lost = RabbitBroker(f"{away},{away}", "t", QUICK)
    with pytest.raises(BrokerAwayError, match=r"RabbitMQ at 127\.0\.0\.1:[0-9]+, 127\.0\.0\.1:[0-9]+ does not answer"):
        lost.publish(JobMessage("x"))
    lost.close()
    assert received.message.job_id == "x"


def test_when_a_node_is_killed_the_next_one_is_taken_at_once(
    private_rabbitmq: rabbitmq.PrivateRabbitMQ | rabbitmq.ContainerRabbitMQ, broker_url: str
) -> None:
    """Whoever asks meanwhile waits for it and hears no error, once the loss of the first is known."""
    patient = RabbitOptions(heartbeat_s=60, vanished_s=60)
    broker = RabbitBroker(f"{private_rabbitmq.url},{broker_url}", "t", patient)
    while not private_rabbitmq.rabbitmqctl("list_connections", "pid"):  # the first one taken is drawn by chance
        broker.close()
        broker = RabbitBroker(f"{private_rabbitmq.url},{broker_url}", "t", patient)
        broker.waiting()

    private_rabbitmq.kill()
    began = time.monotonic()
    wait_published(broker, JobMessage("after"))
    took_s = time.monotonic() - began
    received = get(broker)
    broker.close()

    assert received.message.job_id == "after"
    assert took_s < AT_ONCE_S


def test_a_wrong_password_is_said(broker_url: str) -> None:
    """The reason names what to look at."""
    broker = RabbitBroker(broker_url.replace("guest:guest", "guest:wrong"), options=QUICK)
    with pytest.raises(BrokerAwayError, match="refuses the user or the password"):
        broker.publish(JobMessage("x"))
    broker.close()


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1", "amqp://127.0.0.1:port/", "amqp://a:5672,b:5672/", "amqp://127.0.0.1/,amqp://h:port/"]
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    """At start, naming the setting and not the value."""
    with pytest.raises(ConfigurationError, match="HYBRIDMED_BROKER_URL"):
        RabbitBroker(url)


def test_a_queue_of_another_kind_is_a_clear_error_until_it_is_gone(broker_url: str) -> None:
    """The error names the queue; once an operator deletes it the same broker works."""
    with pika.BlockingConnection(pika.URLParameters(broker_url)) as connection:
        channel = connection.channel()
        channel.queue_declare("t.routine", durable=True)
        broker = RabbitBroker(broker_url, "t", QUICK)
        with pytest.raises(ConfigurationError, match=r"queue 't\.routine' with other arguments"):
            broker.publish(JobMessage("x"))
        channel.queue_delete("t.routine")
    deadline = time.monotonic() + SOON_S
    while True:
        try:
            broker.publish(JobMessage("x"))
            break
        except (BrokerAwayError, ConfigurationError):
            assert time.monotonic() < deadline
            time.sleep(0.1)
    received = get(broker)
    broker.close()

    assert received.message.job_id == "x"


def test_a_deleted_queue_is_made_again(broker: RabbitBroker, broker_url: str) -> None:
    """Publishing to nowhere is not confirmed; the next try finds the queue."""
    broker.publish(JobMessage("lost"))
    with pika.BlockingConnection(pika.URLParameters(broker_url)) as connection:
        connection.channel().queue_delete("t.routine")
    wait_published(broker, JobMessage("found"))

    assert get(broker).message.job_id == "found"


def test_a_message_given_back_too_often_goes_to_the_dead_queue(broker: RabbitBroker, broker_url: str) -> None:
    """It then holds up nobody; its job waits on in the database."""
    broker.publish(JobMessage("bouncing"))
    for _ in range(3):
        get(broker).requeue()
    body = in_dead_queue(broker_url)

    assert body is not None
    assert json.loads(body)["job_id"] == "bouncing"
    assert broker.receive(0.5) is None


def test_a_message_that_is_none_of_ours_goes_to_the_dead_queue(broker: RabbitBroker, broker_url: str) -> None:
    """The ones behind it are not held up."""
    broker.waiting()
    with pika.BlockingConnection(pika.URLParameters(broker_url)) as connection:
        connection.channel().basic_publish("", "t.routine", b"hello")
    broker.publish(JobMessage("ours"))

    assert get(broker).message.job_id == "ours"
    assert in_dead_queue(broker_url) == b"hello"
