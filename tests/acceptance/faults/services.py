"""PostgreSQL and RabbitMQ killed, stopped, starved, and the network before them."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from functools import partial

import sqlalchemy as sa

from tests.acceptance.faults.fault import AT_ONCE, LATER, Begin, End, Fault, over_at_once
from tests.acceptance.faults.peers import set_mode
from tests.acceptance.faults.proxy import Mode, Proxy
from tests.acceptance.faults.servers import Servers
from tests.acceptance.faults.sign import BROKER_AWAY, BROKER_BLOCKS, DATABASE_AWAY, DATABASE_SILENT, Sign
from tests.acceptance.faults.site import Kind, Site

_GROWN: frozenset[Kind] = frozenset({"postgres"})
_LOCK_LIMIT_S = 60


def _servers(site: Site) -> Servers:
    if site.servers is None:
        raise ValueError("this fault needs servers of the harness's own")
    return site.servers


def _database(servers: Servers) -> Proxy:
    return servers.postgres_proxy


def _broker(servers: Servers) -> Proxy:
    return servers.rabbitmq_proxy


def _with_network(proxy_of: Callable[[Servers], Proxy], mode: Mode) -> Begin:
    def begin(site: Site, _dice: random.Random) -> End:
        proxy = proxy_of(_servers(site))
        set_mode(proxy, mode)
        if mode == "refuse":
            proxy.reset()
        return partial(set_mode, proxy, "pass")

    return begin


def _reset(proxy_of: Callable[[Servers], Proxy]) -> Begin:
    def begin(site: Site, _dice: random.Random) -> End:
        proxy_of(_servers(site)).reset()
        return over_at_once

    return begin


def _kill_postgres(site: Site, _dice: random.Random) -> End:
    servers = _servers(site)
    servers.postgres.kill()
    return servers.postgres.start


def _end_connections(site: Site, _dice: random.Random) -> End:
    _servers(site).end_connections()
    return over_at_once


def _serialize(site: Site, _dice: random.Random) -> End:
    """Make every transaction serializable: those that meet fail, as PostgreSQL may let any transaction fail."""
    servers = _servers(site)
    servers.set_isolation("serializable")
    return partial(servers.set_isolation, "read committed")


def _lock_jobs(site: Site, _dice: random.Random) -> End:
    """Hold a lock on the table of jobs, as a careless shell does."""
    servers = _servers(site)
    ending, locked = threading.Event(), threading.Event()

    def hold() -> None:
        with servers.sql() as connection, connection.transaction():
            connection.execute("LOCK TABLE job IN ACCESS EXCLUSIVE MODE")
            locked.set()
            ending.wait(_LOCK_LIMIT_S)

    thread = threading.Thread(target=hold, name="lock", daemon=True)
    thread.start()
    locked.wait(10)

    def end() -> None:
        ending.set()
        thread.join(10)

    return end


def _stop_rabbitmq(site: Site, _dice: random.Random) -> End:
    servers = _servers(site)
    servers.rabbitmq.stop()
    return servers.rabbitmq.start


def _kill_rabbitmq(site: Site, _dice: random.Random) -> End:
    servers = _servers(site)
    servers.rabbitmq.kill()
    return servers.rabbitmq.start


def _alarm(setting: str, low: str, usual: str) -> Begin:
    """Let RabbitMQ run short of something: it takes no more messages."""

    def begin(site: Site, _dice: random.Random) -> End:
        rabbitmq = _servers(site).rabbitmq
        rabbitmq.rabbitmqctl(setting, low)

        def end() -> None:
            rabbitmq.rabbitmqctl(setting, usual)

        return end

    return begin


def _repeat_messages(site: Site, dice: random.Random) -> End:
    """Publish messages again, of jobs that are done and of jobs that wait."""
    with site.engine.connect() as connection:
        jobs = list(connection.scalars(sa.text("SELECT id FROM job")))
    _servers(site).repeat_messages(dice.sample(jobs, min(len(jobs), 20)) * 2)
    return over_at_once


def _reorder_messages(site: Site, _dice: random.Random) -> End:
    _servers(site).reorder_messages()
    return over_at_once


def _fault(
    name: str, subject: str, begin: Begin, lasts_s: tuple[float, float] = (0, 0), sign: Sign | str = AT_ONCE
) -> Fault:
    return Fault(name, subject, begin, lasts_s, sign, kinds=_GROWN)


SERVICES = (
    _fault("PostgreSQL killed and started", "database", _kill_postgres, (1, 8), DATABASE_AWAY),
    _fault("connections to PostgreSQL ended", "database", _end_connections),
    _fault("connections to PostgreSQL reset", "database", _reset(_database)),
    _fault("PostgreSQL unreachable", "database", _with_network(_database, "refuse"), (2, 8), DATABASE_AWAY),
    _fault("PostgreSQL silent", "database", _with_network(_database, "stall"), (2, 8), DATABASE_SILENT),
    _fault("PostgreSQL slow", "database", _with_network(_database, "slow"), (3, 6), LATER),
    _fault("transactions that conflict", "database", _serialize, (3, 8), "conflicts are tried again"),
    _fault("table of jobs locked", "database", _lock_jobs, (2, 6), DATABASE_SILENT),
    _fault("RabbitMQ stopped and started", "broker", _stop_rabbitmq, (1, 6), BROKER_AWAY),
    _fault("RabbitMQ killed and started", "broker", _kill_rabbitmq, (1, 6), BROKER_AWAY),
    _fault("connections to RabbitMQ reset", "broker", _reset(_broker)),
    _fault("RabbitMQ unreachable", "broker", _with_network(_broker, "refuse"), (2, 8), BROKER_AWAY),
    _fault("RabbitMQ silent", "broker", _with_network(_broker, "stall"), (3, 9), BROKER_AWAY),
    _fault("RabbitMQ slow", "broker", _with_network(_broker, "slow"), (3, 6), LATER),
    _fault(
        "RabbitMQ out of memory",
        "broker",
        _alarm("set_vm_memory_high_watermark", "0.000001", "0.4"),
        (3, 9),
        BROKER_BLOCKS,
    ),
    _fault("RabbitMQ out of disk", "broker", _alarm("set_disk_free_limit", "900000GB", "50MB"), (3, 9), BROKER_BLOCKS),
    _fault("messages repeated", "broker", _repeat_messages),
    _fault("messages reordered", "broker", _reorder_messages),
)
"""Faults of the servers that a grown gateway stands on."""
