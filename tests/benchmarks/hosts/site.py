"""Two receivers, two hosts that dispatch and deliver, three workers, and the services that they share."""

from __future__ import annotations

import contextlib
import hashlib
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from typing import Any

import boto3
import sqlalchemy as sa
from botocore.exceptions import ClientError
from fhir_facade.app import create_app
from starlette.applications import Starlette
from starlette.routing import Mount

from gateway.store import open_store
from tests.acceptance.faults.ledger import Ledger
from tests.acceptance.faults.load import CALLED_AE, CALLING_AE, Load
from tests.acceptance.faults.pacs import AE_TITLE, Pacs
from tests.acceptance.faults.verdict import list_reports
from tests.services import postgres
from tests.services.network import Host, Network
from tests.services.process import Program, listens, run, wait_until
from tests.services.rabbitmq_cluster import Cluster
from tests.services.s3 import ACCOUNT, BUCKET, S3Server, settings_of
from tests.studies import REPOSITORY
from tests.unit.web.serving import served

LEASE_S = 6.0
_ROLES = {
    "receive1": "receive",
    "receive2": "receive",
    "dispatch1": "dispatch,deliver",
    "dispatch2": "dispatch,deliver",
    "work1": "work",
    "work2": "work",
    "work3": "work",
}
_PORT = 11112
_START_S = 180
_PREFIX = "hybridmed"
_EVERY_S = 3.0
_STEP_S = 5.0
"""How long a modality waits for an answer: a receiver without power gives none."""
_LIMITS = {
    "HYBRIDMED_QUIET_S": "1",
    "HYBRIDMED_LEASE_S": str(LEASE_S),
    "HYBRIDMED_RETRY_S": "0.5",
    "HYBRIDMED_RETRY_LIMIT_S": "3",
    "HYBRIDMED_DELIVERY_TIMEOUT_S": "5",
    "HYBRIDMED_S3__TIMEOUT_S": "5",
    "HYBRIDMED_RESERVE_MIB": "64",
    "HYBRIDMED_DEVICE": "cpu",
    "HYBRIDMED_LOG_FORMAT": "json",
}


@dataclass(frozen=True)
class Plan:
    """What is built."""

    seed: int
    rabbitmq_nodes: int = 3


class Machine:
    """A host on which roles of the gateway run.

    Parameters
    ----------
    host
        The host.
    roles
        As `serve --only` takes them.
    folder
        Its disk: data folder and log, which no other host sees.
    env
        The settings.
    """

    def __init__(self, host: Host, roles: str, folder: Path, env: Mapping[str, str]) -> None:
        folder.mkdir()
        self.host = host
        settings = {**env, "HYBRIDMED_DATA_DIR": str(folder / "data"), "HYBRIDMED_BIND": host.address}
        argv = [*host.place.prefix, sys.executable, "-m", "gateway", "serve", "--only", roles]
        self.data = folder / "data"
        self.program = Program(argv, log=folder / "log", env=settings, cwd=REPOSITORY)

    def kill(self) -> None:
        """End every process of it at once."""
        self.program.kill()

    def start(self) -> None:
        """Start it, where it does not run."""
        if not self.program.is_running:
            self.program.start()


class Site:
    """Everything that runs; a context manager around it.

    Parameters
    ----------
    home
        Folder for the disks and logs of all hosts.
    plan
        What is built.
    """

    def __init__(self, home: Path, plan: Plan) -> None:
        self.plan = plan
        self.ledger = Ledger()
        self.machines: dict[str, Machine] = {}
        self._home = home

    def __enter__(self) -> Site:
        with contextlib.ExitStack() as stack:
            self.network = stack.enter_context(Network())
            self._start_services(stack)
            self.pacs = stack.enter_context(Pacs(self.ledger, self.network.gate))
            env = self._settings()
            upgrade = {**env, "HYBRIDMED_DATA_DIR": str(self._home / "operator")}
            run(sys.executable, "-m", "gateway", "db", "upgrade", env=upgrade, cwd=REPOSITORY)
            for name, roles in _ROLES.items():
                self.machines[name] = Machine(self.network.host(name), roles, self._home / name, env)
                stack.callback(self.machines[name].kill)
                self.machines[name].start()
            receivers = [(self.machines[name].host.address, _PORT) for name in ("receive1", "receive2")]
            for address, port in receivers:
                wait_until(lambda a=address, p=port: listens(p, address=a), _START_S, f"a Storage SCP at {address}")
            self._wait_for_roles()
            template = REPOSITORY / "gateway" / "samples" / "cxr-bacterial.dcm"
            load = Load(receivers, self.ledger, template, seed=self.plan.seed, every_s=_EVERY_S, step_s=_STEP_S)
            self.load = stack.enter_context(load)
            self._closing = stack.pop_all()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._closing.close()

    def tend(self) -> None:
        """Start again what ended, as a service manager does."""
        for machine in self.machines.values():
            machine.start()

    def stored(self, path: str) -> bytes | None:
        """Return an object of the bucket by the path that its row names; None where there is none."""
        try:
            return bytes(self._bucket.get_object(Bucket=BUCKET, Key=f"{_PREFIX}/{path}")["Body"].read())
        except ClientError:
            return None

    def under_way(self) -> Mapping[str, int]:
        """Return how many files and messages wait to be taken."""
        receivers = [machine for machine in self.machines.values() if machine.host.name.startswith("receive")]
        files = sum(len(list((machine.data / "incoming").glob("*/*.*"))) for machine in receivers)
        queued = self.cluster.messages()
        waiting = sum(count for name, count in queued.items() if not name.endswith(".dead"))
        return {"files not indexed": files, "messages in the queues": waiting}

    def reports(self) -> Iterator[dict[str, Any]]:
        """Yield the DiagnosticReports that FHIR would serve from the database; no host of these has the role web."""
        with contextlib.closing(open_store(self._database_url, self._home)) as store:
            app = Starlette(routes=[Mount("/fhir", create_app(store, zone=UTC))])
            with served(app) as client:
                yield from list_reports(client)

    def keep_logs(self, folder: Path) -> None:
        """Copy the log of every host into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, machine in self.machines.items():
            (folder / f"{name}.log").write_bytes(machine.program.log.read_bytes())

    def _start_services(self, stack: contextlib.ExitStack) -> None:
        self.database_host = self.network.host("database")
        self.bucket_host = self.network.host("bucket")
        self.database = postgres.PrivatePostgres(self.database_host.place)
        stack.callback(self.database.close)
        self._database_url = stack.enter_context(postgres.database(self.database.port, self.database.address))
        self.engine = sa.create_engine(self._database_url, poolclass=sa.NullPool)
        self.s3 = S3Server(self._home, self.bucket_host.place)
        stack.callback(self.s3.close)
        self.s3.start()
        self._bucket = boto3.client("s3", endpoint_url=self.s3.url, **ACCOUNT)
        hosts = [self.network.host(f"broker{number}") for number in range(1, self.plan.rabbitmq_nodes + 1)]
        self.cluster = stack.enter_context(Cluster(hosts))

    def _settings(self) -> dict[str, str]:
        return {
            **_LIMITS,
            **settings_of(self.s3),
            "HYBRIDMED_S3__PREFIX": _PREFIX,
            "HYBRIDMED_CONFIG": str(self._home / "none.toml"),
            "HYBRIDMED_DATABASE_URL": self._database_url,
            "HYBRIDMED_BROKER_URL": ",".join(self.cluster.urls),
            "HYBRIDMED_DESTINATIONS": f"PACS={AE_TITLE}@{self.network.gate}:{self.pacs.port}",
            "HYBRIDMED_AE_TITLE": CALLED_AE,
            "HYBRIDMED_DICOM_PORT": str(_PORT),
            "HYBRIDMED_AUTH": "token",
            "HYBRIDMED_TOKENS": hashlib.sha256(b"nobody asks").hexdigest(),
            "HYBRIDMED_ALLOWED_AES": CALLING_AE,
            "HYBRIDMED_ACCESS__TRUSTED_PROXIES": self.network.gate,
        }

    def _wait_for_roles(self) -> None:
        """Return when every role has written a heartbeat."""
        expected = sum(len(roles.split(",")) for roles in _ROLES.values())

        def all_beat() -> bool:
            with self.engine.connect() as connection:
                return int(connection.scalar(sa.text("SELECT count(*) FROM service")) or 0) >= expected

        wait_until(all_beat, _START_S, "heartbeats of all roles")
