"""Fixtures that bring real services and real studies; see `tests/services` and `tests/studies.py`."""

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests import studies
from tests.services import postgres, rabbitmq
from tests.services.orthanc import Orthanc
from tests.stores import migrated_postgres, migrated_sqlite, postgres_store, sqlite_store, store

__all__ = ["migrated_postgres", "migrated_sqlite", "postgres_store", "sqlite_store", "store"]

# The tests start hundreds of interpreters. Where an image forbids bytecode (as many do), each would compile every
# library anew, which takes three times as long as all else that a start does.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# How long an example takes, or its drawing, says more of the machine than of the code: by default 0.2 s are a failure.
settings.register_profile("busy machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy machine")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Take how long the property tests of FHIR searches go on."""
    parser.addoption("--fhir-searches", type=int, default=150, help="searches drawn for each property of FHIR search")


def pytest_report_header() -> str:
    """Say in the head of the run which data it uses."""
    return "data: " + studies.find(Path()).describe()


@pytest.fixture(scope="session")
def real_data(tmp_path_factory: pytest.TempPathFactory) -> studies.RealData:
    """Real studies: all of `../shared/data` where that is present, else the shipped samples."""
    return studies.find(tmp_path_factory.mktemp("xrays"))


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[postgres.PostgresServer]:
    """Give the PostgreSQL server that all tests share."""
    server = postgres.obtain()
    try:
        yield server
    finally:
        server.close()


@pytest.fixture
def postgres_url(postgres_server: postgres.PostgresServer) -> Iterator[str]:
    """Give the SQLAlchemy address of an empty database that is dropped afterwards."""
    with postgres.database(postgres_server.port) as url:
        yield url


@pytest.fixture(scope="session")
def rabbitmq_server() -> Iterator[rabbitmq.RabbitMQ]:
    """Give the RabbitMQ server that all tests share and none may stop."""
    server = rabbitmq.obtain()
    try:
        yield server
    finally:
        server.close()


@pytest.fixture
def broker_url(rabbitmq_server: rabbitmq.RabbitMQ) -> Iterator[str]:
    """Give the AMQP address of an empty virtual host that is deleted afterwards."""
    with rabbitmq_server.virtual_host() as url:
        yield url


@pytest.fixture
def private_rabbitmq() -> Iterator[rabbitmq.PrivateRabbitMQ | rabbitmq.ContainerRabbitMQ]:
    """Give a started RabbitMQ that the test may stop, kill and start again; its address is `url`."""
    server = rabbitmq.private_server()
    try:
        yield server
    finally:
        server.close()


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[Orthanc]:
    """Give a started Orthanc that knows no instance yet."""
    pacs = Orthanc(tmp_path / "orthanc")
    try:
        pacs.start()
        yield pacs
    finally:
        pacs.close()


@pytest.fixture(autouse=True)
def _end_dropped_sockets(request: pytest.FixtureRequest) -> Iterator[None]:
    """Collect sockets that pynetdicom dropped where the warning is expected, not in a later test that forbids it."""
    yield
    if any("unclosed <socket" in str(mark.args[0]) for mark in request.node.iter_markers("filterwarnings")):
        gc.collect()
