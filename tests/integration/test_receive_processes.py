"""Several receiving processes on one port, as one receiver."""

import time
from pathlib import Path

import sqlalchemy as sa
from pynetdicom import AE, build_context
from pynetdicom.association import Association

from gateway.store import open_store
from gateway.store.tables import association, instance, service
from tests.acceptance.gateway_process import GatewayProcess
from tests.receiving import CT, EXPLICIT, image, send, sending
from tests.services.process import wait_until

_PROCESSES, _LIMIT = 2, 6


def test_processes_on_one_port_share_the_limit_and_drain_together(tmp_path: Path) -> None:
    """Six associations over two processes and no seventh; each has its heartbeat; SIGTERM ends both in good order."""
    env = {"HYBRIDMED_RECEIVE_PROCESSES": str(_PROCESSES), "HYBRIDMED_MAX_ASSOCIATIONS": str(_LIMIT)}
    gateway = GatewayProcess(tmp_path, roles="receive", **env)
    assert gateway.cli("db", "upgrade").returncode == 0
    gateway.start()
    wait_until(lambda: gateway.running_count("receive") == _PROCESSES, 60, "two heartbeats")
    opened = [_associate(gateway.dicom_port) for _ in range(_LIMIT)]
    statuses = [send(one, sending(image())) for one in opened]
    refused = _associate(gateway.dicom_port)
    opened.pop().release()
    time.sleep(0.5)
    again = _associate(gateway.dicom_port)
    for one in (*opened, again):
        one.release()
    exit_status = gateway.stop()

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


def _associate(port: int) -> Association:
    ae = AE("CT1")
    ae.acse_timeout = ae.network_timeout = ae.dimse_timeout = 60
    return ae.associate("127.0.0.1", port, contexts=[build_context(CT, EXPLICIT)], ae_title="HYBRIDMED")
