"""Hosts that vanish without a word: what they held is taken from them, and nobody waits for them for long."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from gateway.broker import JobMessage
from gateway.errors import BrokerAwayError
from gateway.rabbitmq import RabbitBroker
from gateway.store import open_store
from tests.services import postgres
from tests.services.network import Network, why_not
from tests.services.process import HANGS_S, Program, wait_until
from tests.services.rabbitmq_cluster import Node
from tests.studies import REPOSITORY

pytestmark = [pytest.mark.skipif(bool(why_not()), reason=why_not() or "they can be made")]

FOUND_OUT_S = 120.0
"""A quarter of an hour and two hours it takes without us; half a minute, and a busy computer's share."""
HOLD = """
import sys, time
from pathlib import Path
import sqlalchemy as sa
from gateway.store import open_store
with open_store(sys.argv[1], Path(sys.argv[2])).write() as connection:
    connection.execute(sa.text("SELECT pg_advisory_xact_lock(1)"))
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def network() -> Iterator[Network]:
    """Give a network without hosts."""
    with Network(number=1) as made:
        yield made


def test_a_transaction_of_a_vanished_host_is_ended(network: Network, tmp_path: Path) -> None:
    """What it had locked is free within the time, not after the two hours that PostgreSQL takes by itself."""
    lost = network.host("lost")
    database = postgres.PrivatePostgres(network.host("database").place)
    try:
        with postgres.database(database.port, database.address) as url:
            argv = [*lost.place.prefix, sys.executable, "-c", HOLD, url, str(tmp_path / "lost")]
            holder = Program(argv, log=tmp_path / "log", cwd=REPOSITORY)
            holder.start()
            holder.wait_ready(lambda: "held" in holder.log_tail(), HANGS_S)
            lost.cut_off()
            holder.kill()
            began = time.monotonic()
            store = open_store(url, tmp_path)
            with store.write() as connection:
                connection.execute(sa.text("SELECT pg_advisory_xact_lock(1)"))
            took_s = time.monotonic() - began
            store.close()
    finally:
        database.close()

    assert took_s < FOUND_OUT_S


def test_another_node_of_the_broker_is_taken_when_one_vanishes(network: Network) -> None:
    """Messages go to the node that is left."""
    nodes = [Node(network.host(name)) for name in ("broker1", "broker2")]
    try:
        for node in nodes:
            node.begin()
        for node in nodes:
            node.wait_ready()
        broker = RabbitBroker(",".join(node.url for node in nodes), "t")
        broker.publish(JobMessage("before"))
        present = next(node for node in nodes if "t.routine" in node.rabbitmqctl("list_queues", "name"))
        present.on.cut_off()
        began = time.monotonic()
        wait_until(lambda: _is_published(broker, JobMessage("after")), HANGS_S, "a message taken")
        took_s = time.monotonic() - began
        broker.close()
    finally:
        for node in nodes:
            node.close()

    assert took_s < FOUND_OUT_S


def _is_published(broker: RabbitBroker, message: JobMessage) -> bool:
    try:
        broker.publish(message)
    except BrokerAwayError:
        return False
    return True
