"""A whole gateway as a user runs it: `hybridmed serve` as a process on free ports, asked through its own doors."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import sqlalchemy as sa

from tests.services.process import HANGS_S, LOOPBACK, Program, free_port, listens, wait_until

AE_TITLE = "HYBRIDMED"
RESULT_TIMEOUT_S = 480
_REPOSITORY = Path(__file__).parents[2]


class GatewayProcess:
    """`hybridmed serve` in a folder of the test.

    Parameters
    ----------
    home
        Folder of its data, settings and log.
    env
        Further `HYBRIDMED_` variables.
    toml
        Text of its `hybridmed.toml`.
    roles
        `--only`; all roles when empty.
    """

    def __init__(self, home: Path, *, toml: str = "", roles: str = "", **env: str) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.data_dir = home / "data"
        self.dicom_port = free_port()
        self.http_port = free_port()
        config = home / "hybridmed.toml"
        config.write_text(toml)
        self.env = {
            "HYBRIDMED_CONFIG": str(config),
            "HYBRIDMED_DATA_DIR": str(self.data_dir),
            "HYBRIDMED_DICOM_PORT": str(self.dicom_port),
            "HYBRIDMED_HTTP_PORT": str(self.http_port),
            "HYBRIDMED_QUIET_S": "2",
            "HYBRIDMED_RETRY_S": "0.5",
            "HYBRIDMED_RETRY_LIMIT_S": "3",
            "HYBRIDMED_LEASE_S": "6",
            "HYBRIDMED_DELIVERY_TIMEOUT_S": "10",
            "HYBRIDMED_RESERVE_MIB": "64",
            "HYBRIDMED_DEVICE": "cpu",
            "HYBRIDMED_LOG_FORMAT": "json",
            **env,
        }
        self._roles = roles
        argv = [sys.executable, "-m", "gateway", "serve", *(["--only", roles] if roles else [])]
        self.program = Program(argv, log=home / "gateway.log", env=self.env, cwd=_REPOSITORY)

    @property
    def address(self) -> str:
        """The Storage SCP as AET@host:port."""
        return f"{AE_TITLE}@{LOOPBACK}:{self.dicom_port}"

    @property
    def url(self) -> str:
        """The root of its HTTP."""
        return f"http://{LOOPBACK}:{self.http_port}"

    def start(self) -> None:
        """Start it; returns when it receives, and answers HTTP where it serves the web."""
        self.program.start()
        self.program.wait_ready(self._is_ready, HANGS_S)

    def stop(self) -> int | None:
        """Ask it to drain, and return its exit status."""
        return self.program.stop(timeout_s=HANGS_S)

    def kill(self) -> None:
        """End the supervisor and all roles at once, as a power cut does to processes."""
        self.program.kill()

    def cli(self, *arguments: str, timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
        """Run `hybridmed` with the gateway's settings."""
        return subprocess.run(
            [sys.executable, "-m", "gateway", *arguments],
            env={**os.environ, **self.env},
            cwd=_REPOSITORY,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def json(self, *arguments: str) -> Any:
        """Run a list or show command with `--json` and return what it printed."""
        ended = self.cli(*arguments, "--json")
        assert ended.returncode == 0, ended.stderr[-2000:] + self.log_tail()
        return json.loads(ended.stdout)

    def get(self, path: str, **parameters: str) -> Any:
        """GET a JSON resource."""
        response = httpx.get(self.url + path, params=parameters, timeout=120, trust_env=False)
        assert response.status_code == httpx.codes.OK, response.text[:2000]
        return response.json()

    def role_pid(self, role: str) -> int:
        """Return the process id of a running role, from its heartbeat."""
        return self.role_pids(role)[0]

    def role_pids(self, role: str, least: int = 1) -> tuple[int, ...]:
        """Return the process ids of a running role, so many at least."""
        found: list[int] = []

        def have_beat() -> bool:
            pids = self._states("SELECT pid FROM service WHERE role = :role", role=role)
            found[:] = [int(pid) for pid in pids if _is_alive(int(pid))]
            return len(found) >= least

        wait_until(have_beat, HANGS_S, f"heartbeat of {role}")
        return tuple(found)

    def running_count(self, role: str) -> int:
        """Return how many processes of a role have a heartbeat."""
        return len(self._states("SELECT pid FROM service WHERE role = :role", role=role))

    def wait_for_jobs(self, count: int, timeout_s: float = RESULT_TIMEOUT_S) -> list[dict[str, Any]]:
        """Wait until so many jobs are done and none is open, and return the jobs."""

        def all_done() -> bool:
            states = self._states("SELECT state FROM job")
            return states.count("done") >= count and not {"queued", "running"} & set(states)

        self._wait(all_done, timeout_s, f"{count} finished jobs")
        return list(self.json("jobs", "list", "--limit", "1000"))

    def wait_for_studies(self, count: int, timeout_s: float = RESULT_TIMEOUT_S) -> list[dict[str, Any]]:
        """Wait until so many studies are past receiving, and return the studies."""

        def all_past() -> bool:
            states = self._states("SELECT state FROM study")
            return len(states) >= count and "receiving" not in states

        self._wait(all_past, timeout_s, f"{count} complete studies")
        return list(self.json("studies", "list", "--limit", "1000"))

    def wait_for_study(self, uid: str, timeout_s: float = RESULT_TIMEOUT_S) -> None:
        """Wait until a study is past receiving, whatever else there is."""

        def is_past() -> bool:
            states = self._states("SELECT state FROM study WHERE study_instance_uid = :uid", uid=uid)
            return bool(states) and "receiving" not in states

        self._wait(is_past, timeout_s, f"study {uid} complete")

    def wait_for_deliveries(self, destination: str = "", timeout_s: float = RESULT_TIMEOUT_S) -> list[dict[str, Any]]:
        """Wait until no delivery (to a destination, if given) waits, and return the deliveries."""

        def none_waits() -> bool:
            query = "SELECT state FROM delivery WHERE destination = :name OR :name = ''"
            states = self._states(query, name=destination)
            return bool(states) and "waiting" not in states

        self._wait(none_waits, timeout_s, "deliveries")
        only = ("--destination", destination) if destination else ()
        return list(self.json("deliveries", "list", "--limit", "1000", *only))

    def log_tail(self) -> str:
        """Return the last of its log."""
        return self.program.log_tail()

    def log_text(self) -> str:
        """Return its whole log."""
        return self.program.log.read_text(errors="replace")

    def stored_files(self) -> list[Path]:
        """Return the instances on disk."""
        return sorted((self.data_dir / "instances").rglob("*.dcm"))

    def _states(self, query: str, **parameters: str) -> list[str]:
        """Ask the database itself: a command for each look would cost more than the work that is waited for."""
        url = self.env.get("HYBRIDMED_DATABASE_URL", f"sqlite:///{self.data_dir / 'hybridmed.db'}")
        engine = sa.create_engine(url, poolclass=sa.NullPool)
        with engine.connect() as connection:
            return list(connection.scalars(sa.text(query), parameters))

    def _wait(self, is_so: Any, timeout_s: float, what: str) -> None:
        try:
            wait_until(is_so, timeout_s, what)
        except TimeoutError as error:
            raise AssertionError(f"{error}\n{self.log_tail()}") from error

    def _is_ready(self) -> bool:
        if not self._roles or "web" in self._roles:
            try:
                httpx.get(self.url + "/healthz", timeout=10, trust_env=False).raise_for_status()
            except httpx.HTTPError:
                return False
        return bool(self._roles and "receive" not in self._roles) or listens(self.dicom_port)


def storescu(address: str, files: Sequence[Path], *options: str) -> subprocess.CompletedProcess[str]:
    """Send files by dcmtk's `dcmsend`, which proposes each file's own transfer syntax."""
    ae_title, _, endpoint = address.partition("@")
    host, _, port = endpoint.partition(":")
    return subprocess.run(
        ["dcmsend", "-aec", ae_title, *options, host, port, *map(str, files)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def settle(seconds: float) -> None:
    """Wait a bounded time for something that must NOT happen."""
    time.sleep(seconds)
