"""The services that the other tests stand on do what those tests take for granted."""

from pathlib import Path

import pika
import psycopg
import pytest

from tests.services import postgres, rabbitmq
from tests.services.orthanc import Orthanc
from tests.services.process import HANGS_S, listens, wait_until
from tests.studies import RealData

QUEUE = "kept"
DURABLE = pika.BasicProperties(delivery_mode=2)


def test_each_test_gets_an_empty_database_that_is_gone_afterwards(postgres_server: postgres.PostgresServer) -> None:
    """A table made in one test's database is in no other's, and the database itself is dropped."""
    with postgres.database(postgres_server.port) as first, postgres.database(postgres_server.port) as second:
        with psycopg.connect(_libpq(first)) as connection:
            connection.execute("CREATE TABLE mine (id integer)")
        with psycopg.connect(_libpq(second)) as connection:
            tables = connection.execute("SELECT count(*) FROM pg_tables WHERE tablename = 'mine'").fetchone()

    assert tables == (0,)
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(_libpq(first))


def test_private_postgres_lets_us_in_and_leaves_nothing() -> None:
    """A server started from installed programs makes databases and ends with its process and port."""
    server = postgres.PrivatePostgres()
    try:
        can_create = postgres.can_create_databases(server.port)
    finally:
        server.close()

    assert can_create
    assert not listens(server.port)


def test_each_test_gets_an_empty_virtual_host(rabbitmq_server: rabbitmq.RabbitMQ) -> None:
    """A queue declared in one virtual host does not exist in another, and both are gone afterwards."""
    with rabbitmq_server.virtual_host() as first, rabbitmq_server.virtual_host() as second:
        _publish(first, b"one")

        assert _has_queue(first)
        assert not _has_queue(second)
    assert not rabbitmq.lets_in(first)


def test_private_rabbitmq_keeps_messages_over_stop_and_kill(
    private_rabbitmq: rabbitmq.PrivateRabbitMQ | rabbitmq.ContainerRabbitMQ,
) -> None:
    """What was published before a stop and before a kill is there after the starts, on the same address."""
    _publish(private_rabbitmq.url, b"one")
    private_rabbitmq.stop()
    was_reachable_while_stopped = rabbitmq.lets_in(private_rabbitmq.url)
    private_rabbitmq.start()
    _publish(private_rabbitmq.url, b"two")
    private_rabbitmq.kill()
    private_rabbitmq.start()
    wait_until(lambda: _waiting(private_rabbitmq.url) == 2, HANGS_S, "the queue back: it comes after the server")

    assert not was_reachable_while_stopped
    assert _drain(private_rabbitmq.url) == [b"one", b"two"]


def test_orthanc_keeps_what_it_received_over_a_restart(orthanc: Orthanc, real_data: RealData, tmp_path: Path) -> None:
    """An uploaded X-ray is found by its modality, comes back byte for byte and survives stop and start."""
    sample = real_data.cxr[0]
    instance = orthanc.upload(sample)
    orthanc.stop()
    was_listening_while_stopped = listens(orthanc.dicom_port)
    orthanc.start()

    assert not was_listening_while_stopped
    assert listens(orthanc.dicom_port)
    assert orthanc.list_instances(Modality="DX") == [instance]
    assert orthanc.list_instances(Modality="SEG") == []
    assert [file.read_bytes() for file in orthanc.save_files(tmp_path / "out")] == [sample.read_bytes()]


def test_orthanc_sends_by_c_store(orthanc: Orthanc, real_data: RealData, tmp_path: Path) -> None:
    """What one Orthanc sends to another arrives there."""
    receiver = Orthanc(tmp_path / "receiver")
    instance = orthanc.upload(real_data.cxr[0])
    try:
        receiver.start()
        orthanc.send([instance], ae_title="ORTHANC", port=receiver.dicom_port)

        assert receiver.list_instances() == [instance]
    finally:
        receiver.close()


def test_services_listen_on_loopback_alone(
    private_rabbitmq: rabbitmq.PrivateRabbitMQ | rabbitmq.ContainerRabbitMQ,
) -> None:
    """A private RabbitMQ is not to be reached by the machine's other addresses."""
    listening = Path("/proc/net/tcp").read_text()

    assert f"0100007F:{private_rabbitmq.port:04X}" in listening
    assert f"00000000:{private_rabbitmq.port:04X}" not in listening


def _libpq(url: str) -> str:
    return url.replace("postgresql+psycopg://", "postgresql://")


def _publish(url: str, body: bytes) -> None:
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.queue_declare(QUEUE, durable=True, arguments={"x-queue-type": "quorum"})
        channel.basic_publish("", QUEUE, body, properties=DURABLE)


def _drain(url: str) -> list[bytes]:
    """Take all messages from the queue and return their bodies."""
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        return [body for _, _, body in iter(lambda: channel.basic_get(QUEUE, auto_ack=True), (None, None, None))]


def _waiting(url: str) -> int:
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        try:
            return int(connection.channel().queue_declare(QUEUE, passive=True).method.message_count)
        except pika.exceptions.ChannelClosedByBroker:
            return 0


def _has_queue(url: str) -> bool:
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        try:
            connection.channel().queue_declare(QUEUE, passive=True)
        except pika.exceptions.ChannelClosedByBroker:
            return False
        return True
