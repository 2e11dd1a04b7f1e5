"""RabbitMQ for the tests: the one that listens on its usual port, else a private one, else one in a container.

Each test gets a virtual host of its own, so that queue names, which are fixed, never meet. A running server counts
only where its command line lets us create virtual hosts.
"""

import contextlib
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

import pika
from pika.exceptions import AMQPError

from tests.services.container import Container, engine
from tests.services.process import (
    HANGS_S,
    LOOPBACK,
    Program,
    ServiceFailedError,
    ServiceMissingError,
    free_port,
    listens,
    run,
    wait_until,
)

USUAL_PORT = 5672
IMAGE = "docker.io/library/rabbitmq:3-alpine"
_ACCOUNT = "guest"
# Debian's /usr/sbin/rabbitmq-server insists on its own user and folders; the script behind it does not.
_DEBIAN_SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")


class RabbitMQ:
    """A server on a loopback port and the command line that administers it.

    Parameters
    ----------
    port
        AMQP port.
    ctl
        Command line that `rabbitmqctl`'s arguments are appended to.
    env
        Variables that `rabbitmqctl` needs.
    host
        Where it listens.
    """

    def __init__(self, port: int, ctl: list[str], env: Mapping[str, str] | None = None, host: str = LOOPBACK) -> None:
        self.port = port
        self.host = host
        self._ctl = ctl
        self._env = dict(env or {})
        self.url = self.address("/")

    def address(self, vhost: str) -> str:
        """Return the AMQP address of a virtual host."""
        return f"amqp://{_ACCOUNT}:{_ACCOUNT}@{self.host}:{self.port}/{vhost.replace('/', '%2F')}"

    def rabbitmqctl(self, *arguments: str) -> str:
        """Run `rabbitmqctl` against this server and return what it prints."""
        return run(*self._ctl, "--quiet", *arguments, env=self._env, timeout_s=HANGS_S)

    @contextlib.contextmanager
    def virtual_host(self) -> Iterator[str]:
        """Create a virtual host and delete it afterwards; yields its address."""
        name = f"hybridmed-test-{uuid.uuid4().hex[:12]}"
        self.rabbitmqctl("add_vhost", name)
        try:
            self.rabbitmqctl("set_permissions", "--vhost", name, _ACCOUNT, ".*", ".*", ".*")
            yield self.address(name)
        finally:
            self.rabbitmqctl("delete_vhost", name)

    def is_usable(self) -> bool:
        """Return whether a virtual host can be made and logged in to."""
        if not listens(self.port):
            return False
        try:
            with self.virtual_host() as address:
                return lets_in(address)
        except ServiceFailedError:
            return False

    def close(self) -> None:
        """Leave a server that was running before as it is."""


def lets_in(url: str) -> bool:
    """Return whether an AMQP connection to this address opens."""
    parameters = pika.URLParameters(url)
    parameters.socket_timeout = parameters.stack_timeout = 30
    try:
        pika.BlockingConnection(parameters).close()
    except (AMQPError, OSError):
        return False
    return True


def obtain() -> RabbitMQ:
    """Return a server to test on: a running one, else a private one, else one in a container.

    Raises
    ------
    ServiceMissingError
        If there is none.
    """
    running = running_server()
    return running if running is not None else private_server()


def running_server() -> RabbitMQ | None:
    """Return the server on the usual port, if its command line lets us make virtual hosts."""
    program = shutil.which("rabbitmqctl")
    if program is None:
        return None
    server = RabbitMQ(USUAL_PORT, [program])
    return server if server.is_usable() else None


def private_server() -> "PrivateRabbitMQ | ContainerRabbitMQ":
    """Start a server of the tests' own that a test may stop and start again.

    Raises
    ------
    ServiceMissingError
        If neither the programs nor a container engine is there.
    """
    server_program = program()
    if server_program is not None:
        return PrivateRabbitMQ(server_program)
    engine_path = engine()
    if engine_path is not None:
        return ContainerRabbitMQ(engine_path)
    raise ServiceMissingError(
        f"RabbitMQ: no server on port {USUAL_PORT} that we may administer, none installed (Debian package: "
        "rabbitmq-server) and no container engine answers"
    )


def program() -> Path | None:
    """Return the installed server's start script, or None."""
    found = shutil.which("rabbitmq-server")
    if _DEBIAN_SERVER.exists():
        return _DEBIAN_SERVER
    return Path(found) if found else None


class PrivateRabbitMQ(RabbitMQ):
    """A server started from installed programs, with its own folder, node name, ports and port mapper."""

    def __init__(self, server_program: Path) -> None:
        port, mapper_port = free_port(), free_port()
        with contextlib.ExitStack() as closing:
            home = Path(tempfile.mkdtemp(prefix="hybridmed-rabbitmq-"))
            closing.callback(shutil.rmtree, home, ignore_errors=True)
            env = _environment(home, port, mapper_port)
            (home / "enabled_plugins").write_text("[].\n")
            (home / "rabbitmq.conf").touch()
            super().__init__(port, [str(server_program.parent / "rabbitmqctl")], env)
            mapper = Program(["epmd", "-port", str(mapper_port)], log=home / "epmd.log", env=env)
            mapper.start()
            closing.callback(mapper.kill)
            mapper.wait_ready(lambda: listens(mapper_port), HANGS_S)
            self._server = Program([str(server_program)], log=home / "server.log", env=env, cwd=home)
            closing.callback(self._server.stop)
            self.start()
            self._closing = closing.pop_all()

    def start(self) -> None:
        """Start the server with what it stored before; returns when it lets clients in."""
        if not self._server.is_running:
            self._server.start()
            self._server.wait_ready(lambda: listens(self.port) and lets_in(self.url), HANGS_S)

    def stop(self) -> None:
        """Stop the server in order; what is durable stays."""
        self._server.stop()

    def kill(self) -> None:
        """End the server at once, as a power cut would."""
        self._server.kill()

    def close(self) -> None:
        """End the server and remove its files."""
        self._closing.close()


class ContainerRabbitMQ(RabbitMQ):
    """A server in a container."""

    def __init__(self, engine_path: str) -> None:
        self._container = Container(engine_path, IMAGE, port=USUAL_PORT)
        super().__init__(self._container.port, self._container.command("rabbitmqctl"))
        with contextlib.ExitStack() as closing:
            closing.callback(self._container.remove)
            self.start()
            self._closing = closing.pop_all()

    def start(self) -> None:
        """Start the server with what it stored before; returns when it answers."""
        self._container.start()
        wait_until(self.is_usable, HANGS_S, "RabbitMQ in a container")

    def stop(self) -> None:
        """Stop the server in order; what is durable stays."""
        self._container.stop()

    def kill(self) -> None:
        """End the server at once, as a power cut would."""
        self._container.kill()

    def close(self) -> None:
        """Remove the container."""
        self._closing.close()


def _environment(home: Path, port: int, mapper_port: int) -> dict[str, str]:
    return {
        "HOME": str(home),
        "ERL_EPMD_PORT": str(mapper_port),
        "ERL_EPMD_ADDRESS": LOOPBACK,
        "RABBITMQ_NODENAME": f"hybridmed-{port}@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": LOOPBACK,
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(free_port()),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        "RABBITMQ_MNESIA_BASE": str(home / "mnesia"),
        "RABBITMQ_LOG_BASE": str(home / "log"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "enabled_plugins"),
        "RABBITMQ_CONFIG_FILE": str(home / "rabbitmq.conf"),
        "RABBITMQ_CONF_ENV_FILE": str(home / "rabbitmq-env.conf"),
        "RABBITMQ_PID_FILE": str(home / "pid"),
    }
