"""PostgreSQL for the tests: the one that listens on its usual port, else a private one, else one in a container."""

import contextlib
import os
import pwd
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import psycopg

from tests.services.container import Container, engine
from tests.services.process import (
    HANGS_S,
    HERE,
    LOOPBACK,
    Place,
    Program,
    ServiceMissingError,
    free_port,
    run,
    wait_until,
)

USUAL_PORT = 5432
IMAGE = "docker.io/library/postgres:16-alpine"
_USER = "postgres"


class PostgresServer(Protocol):
    """A server on a loopback port that lets the user `postgres` create databases."""

    port: int

    def close(self) -> None:
        """End the server, if it was started for the tests."""


def can_create_databases(port: int, address: str = LOOPBACK) -> bool:
    """Return whether a server on this port lets the user `postgres` in and create databases."""
    try:
        with _connect(port, address) as connection:
            row = connection.execute("SELECT rolcreatedb FROM pg_roles WHERE rolname = current_user").fetchone()
            return bool(row and row[0])
    except psycopg.OperationalError:
        return False


@contextlib.contextmanager
def database(port: int, address: str = LOOPBACK, template: str = "template1") -> Iterator[str]:
    """Create a database and drop it afterwards, whoever is still connected; yields its SQLAlchemy address.

    Parameters
    ----------
    template
        Name of the database that it begins as a copy of; nobody may be connected to that one.
    """
    name = f"hybridmed_test_{uuid.uuid4().hex[:12]}"
    with _connect(port, address) as connection:
        connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"'.encode())
    try:
        yield f"postgresql+psycopg://{_USER}@{address}:{port}/{name}"
    finally:
        with _connect(port, address) as connection:
            connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'.encode())


def obtain() -> PostgresServer:
    """Return a server to test on.

    Raises
    ------
    ServiceMissingError
        If none runs, none is installed and no container engine answers.
    """
    if can_create_databases(USUAL_PORT):
        return RunningPostgres()
    if programs() is not None:
        return PrivatePostgres()
    engine_path = engine()
    if engine_path is not None:
        return ContainerPostgres(engine_path)
    raise ServiceMissingError(
        f"PostgreSQL: nothing on port {USUAL_PORT} lets the user postgres create databases, no server is "
        "installed (Debian package: postgresql) and no container engine answers"
    )


def programs() -> Path | None:
    """Return the folder of the newest installed server programs, or None."""
    beside_initdb = shutil.which("initdb")
    if beside_initdb:
        return Path(beside_initdb).resolve().parent
    versions = [path for path in Path("/usr/lib/postgresql").glob("*/bin") if (path / "initdb").exists()]
    return max(versions, key=lambda path: int(path.parent.name), default=None)


class RunningPostgres:
    """The server that listens on the usual port; the tests leave it running."""

    port = USUAL_PORT

    def close(self) -> None:
        """Leave the server as it is."""


class PrivatePostgres:
    """A server of the tests' own, started from installed programs by a user other than root.

    Parameters
    ----------
    place
        Where it runs; on a host of its own it lets in everyone on the same network.
    """

    def __init__(self, place: Place = HERE) -> None:
        folder = programs()
        if folder is None:
            raise ServiceMissingError("PostgreSQL: no server is installed (Debian package: postgresql)")
        self.port = free_port()
        self.address = place.address
        with contextlib.ExitStack() as closing:
            home = Path(tempfile.mkdtemp(prefix="hybridmed-postgres-"))
            closing.callback(shutil.rmtree, home)
            become = _become_postgres(home)
            data = str(home / "data")
            initdb = [str(folder / "initdb"), "-D", data, "-U", _USER, "-A", "trust", "-E", "UTF8"]
            run(*become, *initdb, "--locale=C", "--no-sync", cwd=home)
            if place != HERE:
                with (home / "data" / "pg_hba.conf").open("a") as rules:
                    rules.write("host all all samenet trust\n")
            server = [*place.prefix, *become, str(folder / "postgres"), "-D", data, "-p", str(self.port)]
            settings = ["-c", f"listen_addresses={self.address}", "-c", "unix_socket_directories=", "-c", "fsync=off"]
            self._program = Program([*server, *settings], log=home / "log", cwd=home)
            closing.callback(self._program.stop)
            self.start()
            self._closing = closing.pop_all()

    def start(self) -> None:
        """Start the server with what it stored before; returns when it lets clients in."""
        if not self._program.is_running:
            self._program.start()
            self._program.wait_ready(lambda: can_create_databases(self.port, self.address), HANGS_S)

    def kill(self) -> None:
        """End the server at once, as the end of its process by the kernel would."""
        self._program.kill()

    def close(self) -> None:
        """End the server and remove its files."""
        self._closing.close()


class ContainerPostgres:
    """A server in a container."""

    def __init__(self, engine_path: str) -> None:
        environment = {"POSTGRES_HOST_AUTH_METHOD": "trust", "POSTGRES_USER": _USER}
        self._container = Container(engine_path, IMAGE, port=USUAL_PORT, env=environment)
        self.port = self._container.port
        with contextlib.ExitStack() as closing:
            closing.callback(self._container.remove)
            self._container.start()
            wait_until(lambda: can_create_databases(self.port), HANGS_S, "PostgreSQL in a container")
            self._closing = closing.pop_all()

    def close(self) -> None:
        """Remove the container."""
        self._closing.close()


def _connect(port: int, address: str = LOOPBACK) -> "psycopg.Connection[tuple[object, ...]]":
    return psycopg.connect(host=address, port=port, user=_USER, dbname="postgres", connect_timeout=30, autocommit=True)


def _become_postgres(home: Path) -> list[str]:
    """Hand a folder to the user `postgres` and return the prefix that runs a program as that user; none unless root."""
    if os.getuid() != 0:
        return []
    account = pwd.getpwnam(_USER)
    os.chown(home, account.pw_uid, account.pw_gid)
    return ["setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"]
