"""Several receiving processes on one port, as one receiver."""

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import sqlalchemy as sa
from pynetdicom import AE, build_context
from pynetdicom.association import Association

from gateway.store import open_store
from gateway.store.tables import association, instance, service
from tests.acceptance.gateway_process import GatewayProcess
from tests.receiving import CT, EXPLICIT, image, send, sending
from tests.services.process import HANGS_S, wait_until

_PROCESSES, _LIMIT = 2, 6


def test_processes_on_one_port_share_the_limit_and_drain_together(tmp_path: Path) -> None:
    """Six associations over two processes and no seventh; each has its heartbeat; SIGTERM ends both in good order.

    Forty connections that say nothing take no place meanwhile.
    """
    env = {"HYBRIDMED_RECEIVE_PROCESSES": str(_PROCESSES), "HYBRIDMED_MAX_ASSOCIATIONS": str(_LIMIT)}
    gateway = GatewayProcess(tmp_path, roles="receive", **env)
    assert gateway.cli("db", "upgrade").returncode == 0
    gateway.start()
    wait_until(lambda: gateway.running_count("receive") == _PROCESSES, HANGS_S, "two heartbeats")
    silent = [socket.create_connection(("127.0.0.1", gateway.dicom_port)) for _ in range(40)]
    opened = [_associate(gateway.dicom_port) for _ in range(_LIMIT)]
    statuses = [send(one, sending(image())) for one in opened]
    refused = _associate(gateway.dicom_port)
    opened.pop().release()
    again, _ = _let_in(gateway.dicom_port)
    for one in (*opened, again):
        one.release()
    exit_status = gateway.stop()
    for peer in silent:
        peer.close()

    store = open_store(f"sqlite:///{gateway.data_dir / 'hybridmed.db'}", gateway.data_dir)
    with store.read() as connection:
        used = set(connection.scalars(sa.select(association.c.service_id)))
        outcomes = list(connection.scalars(sa.select(association.c.outcome)))
        indexed = connection.scalar(sa.select(sa.func.count()).select_from(instance))
        left = connection.scalar(sa.select(sa.func.count()).select_from(service))
    store.close()
    assert [answer is not None and answer.status for answer in statuses] == [0] * _LIMIT
    assert refused.is_rejected
    assert again.is_released
    assert exit_status == 0
    assert 1 <= len(used) <= _PROCESSES
    assert outcomes == ["released"] * _LIMIT
    assert (indexed, left) == (_LIMIT, 0)


def test_what_holds_for_an_ae_title_holds_over_all_processes(tmp_path: Path) -> None:
    """Two associations of CT1 over three processes and no third, while CT2 comes in; after a release, at once again."""
    toml = '[[peers]]\nae_title = "CT1"\nmax_associations = 2\nmax_instances_per_s = 20.0\n'
    gateway = GatewayProcess(
        tmp_path,
        toml=toml + '[[peers]]\nae_title = "CT2"\n',
        roles="receive",
        HYBRIDMED_RECEIVE_PROCESSES="3",
    )
    assert gateway.cli("db", "upgrade").returncode == 0
    gateway.start()
    wait_until(lambda: gateway.running_count("receive") == 3, HANGS_S, "three heartbeats")
    opened = [_associate(gateway.dicom_port) for _ in range(2)]
    refused = [_associate(gateway.dicom_port) for _ in range(6)]
    other = _associate(gateway.dicom_port, "CT2")
    others_end = other.is_established
    sent = [sending(image()) for _ in range(25)]
    began = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda one: [send(one, each) for each in sent], opened))
    took_s = time.monotonic() - began
    again: list[int] = []
    for _ in range(10):
        opened.pop().release()
        one, tries = _let_in(gateway.dicom_port)
        opened.append(one)
        again.append(tries)
    for one in (*opened, other):
        one.release()
    gateway.stop()

    assert all(one.is_rejected for one in refused)
    assert others_end
    assert all(answer is not None and answer.status == 0 for those in answers for answer in those)
    assert took_s > 1.2  # twenty at once, then twenty a second: of each process they would have been done at once
    assert again.count(1) > len(again) / 2  # a busy computer may once be late with its books


def _let_in(port: int) -> tuple[Association, int]:
    """Associate where a place comes free; return the association, and after how many tries."""
    tried: list[Association] = []

    def is_in() -> bool:
        tried.append(_associate(port))
        return tried[-1].is_established

    wait_until(is_in, HANGS_S, "a place")
    return tried[-1], len(tried)


def _associate(port: int, calling_ae: str = "CT1") -> Association:
    ae = AE(calling_ae)
    ae.acse_timeout = ae.network_timeout = ae.dimse_timeout = 60
    return ae.associate("127.0.0.1", port, contexts=[build_context(CT, EXPLICIT)], ae_title="HYBRIDMED")
