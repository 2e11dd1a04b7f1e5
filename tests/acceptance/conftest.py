"""Whole gateways for the acceptance tests, on the embedded default and on PostgreSQL with RabbitMQ."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest

from tests.acceptance.gateway_process import GatewayProcess


class MakeGateway(Protocol):
    """Makes a gateway with further settings; it is ended with the test."""

    def __call__(self, *, toml: str = "", roles: str = "", **env: str) -> GatewayProcess:
        """Return a gateway that is not started."""


@pytest.fixture
def make_embedded(tmp_path: Path) -> Iterator[MakeGateway]:
    """Make gateways on SQLite with the jobs table as their queue."""
    yield from _maker(tmp_path, dict)


@pytest.fixture
def make_grown(tmp_path: Path, postgres_url: str, broker_url: str) -> Iterator[MakeGateway]:
    """Make gateways on PostgreSQL and RabbitMQ, the database upgraded by the command."""
    yield from _maker(
        tmp_path, lambda: {"HYBRIDMED_DATABASE_URL": postgres_url, "HYBRIDMED_BROKER_URL": broker_url}, upgrades=True
    )


@pytest.fixture(params=["embedded", "grown"])
def make_gateway(request: pytest.FixtureRequest) -> MakeGateway:
    """Make gateways of both kinds: the test runs twice."""
    maker: MakeGateway = request.getfixturevalue(f"make_{request.param}")
    return maker


def _maker(home: Path, services: Callable[[], dict[str, str]], *, upgrades: bool = False) -> Iterator[MakeGateway]:
    made: list[GatewayProcess] = []

    def make(*, toml: str = "", roles: str = "", **env: str) -> GatewayProcess:
        gateway = GatewayProcess(home / f"gateway{len(made)}", toml=toml, roles=roles, **{**services(), **env})
        made.append(gateway)
        if upgrades:
            upgraded = gateway.cli("db", "upgrade")
            assert upgraded.returncode == 0, upgraded.stderr
        return gateway

    try:
        yield make
    finally:
        for gateway in made:
            gateway.stop()
