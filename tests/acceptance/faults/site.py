"""Everything that runs: the gateway with its parts, what stands around it, and who answers to which process id."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import httpx
import psutil
import sqlalchemy as sa

from tests.acceptance.faults import preload
from tests.acceptance.faults.clock import Clock
from tests.acceptance.faults.device import Device
from tests.acceptance.faults.disk import Disk
from tests.acceptance.faults.ledger import Ledger
from tests.acceptance.faults.load import Load
from tests.acceptance.faults.pacs import AE_TITLE, Pacs
from tests.acceptance.faults.power import Power
from tests.acceptance.faults.proxy import Proxy
from tests.acceptance.faults.servers import Servers
from tests.acceptance.faults.verdict import list_reports
from tests.acceptance.gateway_process import GatewayProcess
from tests.services.process import LOOPBACK, Program, listens
from tests.studies import REPOSITORY

Kind = Literal["sqlite", "postgres"]
ROLES = ("receive", "dispatch", "work", "deliver", "web")
RESERVE_MIB = 64
LEASE_S = 6.0
QUIET_S = 1.0
SILENCE_LIMIT_S = 25.0
JOB_LIMIT_S = 90.0
_MAX_AGE_S = 45
_RETENTION = f"""
[retention]
max_age_days = {_MAX_AGE_S / 86400}
min_age_hours = 0
keep_unverified = false
keep_reports = false
every_s = 5
"""


@dataclass(frozen=True)
class Plan:
    """What is built."""

    kind: Kind
    seed: int
    every_s: float = 1.5
    """Mean pause of each modality between studies."""
    second_worker: bool = False
    swallows: str = ""
    """Paths that hold it are never made durable, whatever is synced: to prove that the harness finds it; '' none."""


class Site:
    """A running gateway under load; a context manager around all of it.

    Parameters
    ----------
    home
        Folder for data, settings and logs.
    plan
        What is built.
    """

    def __init__(self, home: Path, plan: Plan) -> None:
        self.plan = plan
        self.ledger = Ledger()
        self.device = Device(home / "device")
        self.disk: Disk | None = None
        can_preload = preload.can_make()
        self.clock = Clock(home / "clock") if can_preload else None
        self.power = Power(home / "power", home / "gateway" / "data", plan.swallows) if can_preload else None
        self.servers: Servers | None = None
        self.cut_files = 0
        """Files that lost bytes with the power."""
        self.lost_names = 0
        """Names of files and folders that went with the power."""
        self.undone_writes = 0
        """Of the database, by losses of power."""
        self.operator: Program | None = None
        """A command that an operator runs, one at a time."""
        self._home = home
        self._second: Program | None = None

    def __enter__(self) -> Site:
        with contextlib.ExitStack() as stack:
            self.pacs = stack.enter_context(Pacs(self.ledger))
            self.pacs_proxy = stack.enter_context(Proxy(self.pacs.port))
            if self.plan.kind == "postgres":
                self.servers = stack.enter_context(Servers())
            if Disk.can_mount(self._home):
                self.disk = stack.enter_context(Disk(self._home / "gateway" / "data"))
            self.gateway = self._make_gateway()
            stack.callback(self.gateway.stop)
            if self.servers is not None:
                upgraded = self.gateway.cli("db", "upgrade")
                if upgraded.returncode != 0:
                    raise RuntimeError(upgraded.stderr[-2000:])
            self.gateway.start()
            if self.plan.second_worker:
                argv = [sys.executable, "-m", "gateway", "serve", "--only", "work"]
                log = self._home / "second-worker.log"
                self._second = Program(argv, log=log, env=self.gateway.env, cwd=REPOSITORY)
                stack.callback(self._second.stop)
            self.engine = sa.create_engine(self._database_url, poolclass=sa.NullPool)
            self.load = stack.enter_context(self._make_load())
            self._closing = stack.pop_all()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._closing.close()

    def operate(self, *arguments: str) -> Program:
        """Begin a command of an operator, and return it."""
        argv = [sys.executable, "-m", "gateway", *arguments]
        self.operator = Program(argv, log=self._home / "operator.log", env=self.gateway.env, cwd=REPOSITORY)
        self.operator.start()
        return self.operator

    def tend(self) -> None:
        """Start the second worker again where it ended, as a service manager does."""
        if self._second is not None and not self._second.is_running:
            self._second.start()

    def stored(self, path: str) -> bytes | None:
        """Return a kept file by the path that its row names; None where there is none."""
        file = self.gateway.data_dir / path
        return file.read_bytes() if file.is_file() else None

    def under_way(self) -> Mapping[str, int]:
        """Return how many files and messages wait to be taken."""
        files = {"files not indexed": len(list((self.gateway.data_dir / "incoming").glob("*/*.*")))}
        return files if self.servers is None else {**files, "messages in the queues": self.servers.messages()}

    def reports(self) -> Iterator[dict[str, Any]]:
        """Yield the DiagnosticReports in FHIR."""
        with httpx.Client(base_url=self.gateway.url, timeout=60, trust_env=False) as client:
            yield from list_reports(client)

    def pids(self, role: str) -> list[int]:
        """Return the processes of a role, from the process table: the database may be away."""
        found = []
        if self.gateway.program.is_running:
            for child in psutil.Process(self.gateway.program.pid).children():
                with contextlib.suppress(psutil.Error, IndexError):
                    if child.status() != psutil.STATUS_ZOMBIE and child.cmdline()[-1] == role:
                        found.append(child.pid)
        if role == "work" and self._second is not None and self._second.is_running:
            found.append(self._second.pid)
        return found

    def kill(self, pid: int) -> None:
        """End a process with no chance to tidy up."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    def kill_all(self) -> None:
        """End every process of the gateway at once."""
        self.gateway.kill()
        for program in (self._second, self.operator):
            if program is not None:
                program.kill()

    def start_again(self) -> None:
        """Start the gateway after `kill_all`."""
        self.gateway.start()
        self.tend()

    def is_whole(self) -> bool:
        """Say whether every role has a process and the Storage SCP listens."""
        return all(self.pids(role) for role in ROLES) and listens(self.gateway.dicom_port)

    @property
    def _database_url(self) -> str:
        """The database past the proxy."""
        if self.servers is not None:
            return self.servers.database_url
        return f"sqlite:///{self.gateway.data_dir / 'hybridmed.db'}"

    def _preloaded_env(self) -> dict[str, str]:
        preloaded = [each for each in (self.clock, self.power) if each is not None]
        env = dict(preload.env_of([each.library for each in preloaded]))
        for each in preloaded:
            env |= each.env
        return env

    def _make_gateway(self) -> GatewayProcess:
        return GatewayProcess(
            self._home / "gateway",
            toml=_RETENTION,
            HYBRIDMED_DESTINATIONS=f"PACS={AE_TITLE}@{LOOPBACK}:{self.pacs_proxy.port}",
            HYBRIDMED_QUIET_S=str(QUIET_S),
            HYBRIDMED_LEASE_S=str(LEASE_S),
            HYBRIDMED_DELIVERY_TIMEOUT_S="5",
            HYBRIDMED_RESERVE_MIB=str(RESERVE_MIB),
            **({} if self.servers is None else self.servers.env),
            HYBRIDMED_SILENCE_LIMIT_S=str(SILENCE_LIMIT_S),
            HYBRIDMED_JOB_LIMIT_S=str(JOB_LIMIT_S),
            **self.device.env,
            **self._preloaded_env(),
        )

    def _make_load(self) -> Load:
        template = REPOSITORY / "gateway" / "samples" / "cxr-bacterial.dcm"
        receivers = [(LOOPBACK, self.gateway.dicom_port)]
        return Load(receivers, self.ledger, template, seed=self.plan.seed, every_s=self.plan.every_s)
