"""PostgreSQL and RabbitMQ of the harness's own, each behind a proxy: what it may stop, kill and starve."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

import pika
import psycopg

from tests.acceptance.faults.proxy import Proxy
from tests.services import postgres, rabbitmq
from tests.services.process import LOOPBACK, ServiceMissingError

QUEUES = ("hybridmed.jobs.stat", "hybridmed.jobs.routine")


class Servers:
    """Both servers with an empty database and empty queues; a context manager around their processes."""

    def __enter__(self) -> Servers:
        program = rabbitmq.program()
        if program is None:
            raise ServiceMissingError("RabbitMQ: not installed (Debian package: rabbitmq-server)")
        with contextlib.ExitStack() as stack:
            self.postgres = postgres.PrivatePostgres()
            stack.callback(self.postgres.close)
            self.database_url = stack.enter_context(_database_that_may_be_away(self.postgres))
            self.rabbitmq = rabbitmq.PrivateRabbitMQ(program)
            stack.callback(self.rabbitmq.close)
            self.postgres_proxy = stack.enter_context(Proxy(self.postgres.port))
            self.rabbitmq_proxy = stack.enter_context(Proxy(self.rabbitmq.port))
            self._closing = stack.pop_all()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._closing.close()

    @property
    def env(self) -> dict[str, str]:
        """What the gateway is told: the proxies' addresses."""
        database, broker = self.postgres, self.rabbitmq
        return {
            "HYBRIDMED_DATABASE_URL": self.database_url.replace(f":{database.port}/", f":{self.postgres_proxy.port}/"),
            "HYBRIDMED_BROKER_URL": broker.url.replace(f":{broker.port}/", f":{self.rabbitmq_proxy.port}/"),
        }

    @property
    def _database(self) -> str:
        return self.database_url.rpartition("/")[2]

    def sql(self) -> psycopg.Connection[tuple[object, ...]]:
        """Connect to the gateway's database past the proxy."""
        return psycopg.connect(
            host=LOOPBACK, port=self.postgres.port, user="postgres", dbname=self._database, autocommit=True
        )

    def end_connections(self) -> None:
        """Let the server end every connection of the gateway."""
        with self.sql() as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
                "AND pid <> pg_backend_pid()"
            )

    def set_isolation(self, level: str) -> None:
        """Set the isolation of all transactions that begin on connections made from now on; end the others."""
        alter = f"ALTER DATABASE \"{self._database}\" SET default_transaction_isolation = '{level}'"
        with self.sql() as connection:
            connection.execute(alter.encode())
        self.end_connections()

    def messages(self) -> int:
        """Return how many messages lie in the queues, those in hand among them."""
        listed = self.rabbitmq.rabbitmqctl("list_queues", "name", "messages", "--formatter", "json")
        return sum(int(row["messages"]) for row in json.loads(listed) if row["name"] in QUEUES)

    def repeat_messages(self, job_ids: list[str]) -> None:
        """Publish messages of these jobs, whatever their state, in this order."""
        with contextlib.closing(pika.BlockingConnection(pika.URLParameters(self.rabbitmq.url))) as connection:
            channel = connection.channel()
            for job_id in job_ids:
                channel.basic_publish("", QUEUES[-1], json.dumps({"job_id": job_id}).encode())

    def reorder_messages(self) -> None:
        """Take what waits off the queue and put it back in the opposite order."""
        with contextlib.closing(pika.BlockingConnection(pika.URLParameters(self.rabbitmq.url))) as connection:
            channel = connection.channel()
            held = []
            while (fetched := channel.basic_get(QUEUES[-1]))[0] is not None:
                held.append(fetched)
            for _method, properties, body in reversed(held):
                channel.basic_publish("", QUEUES[-1], body, properties)
            for method, _properties, _body in held:
                channel.basic_ack(method.delivery_tag)


@contextlib.contextmanager
def _database_that_may_be_away(server: postgres.PrivatePostgres) -> Iterator[str]:
    """Create a database; it goes with its server."""
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(postgres.database(server.port))
        stack.callback(server.start)  # dropped by a connection: a fault may have left the server killed
        yield url
