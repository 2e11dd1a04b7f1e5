"""RabbitMQ on hosts of its own: one node, or three that hold every quorum queue together."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from pathlib import Path

from tests.services.network import Host
from tests.services.process import HANGS_S, Program, ServiceFailedError, ServiceMissingError, wait_until
from tests.services.rabbitmq import USUAL_PORT, RabbitMQ, lets_in, program

_COOKIE = "hybridmed-tests"
_TICK_S = 10
"""Erlang takes a silent node for gone after this time, not after its own 60 s: as an operator of a cluster sets it."""
_SETTINGS = """\
loopback_users.guest = false
cluster_partition_handling = pause_minority
disk_free_limit.absolute = 50MB
"""


class Node(RabbitMQ):
    """One node on a host.

    Parameters
    ----------
    host
        Where it runs.
    """

    def __init__(self, host: Host) -> None:
        server_program = program()
        if server_program is None:
            raise ServiceMissingError("RabbitMQ: not installed (Debian package: rabbitmq-server)")
        self.name = f"rabbit@{host.address}"
        self.on = host
        self._home = Path(tempfile.mkdtemp(prefix=f"hybridmed-{host.name}-"))
        (self._home / "enabled_plugins").write_text("[].\n")
        (self._home / "rabbitmq.conf").write_text(_SETTINGS)
        cookie = self._home / ".erlang.cookie"
        cookie.write_text(_COOKIE)
        cookie.chmod(0o400)
        env = self._environment(host.address)
        ctl = [*host.inside, str(server_program.parent / "rabbitmqctl")]
        super().__init__(USUAL_PORT, ctl, env, host.address)
        argv = [*host.place.prefix, str(server_program)]
        self._server = Program(argv, log=self._home / "server.log", env=env, cwd=self._home)

    def start(self) -> None:
        """Start it with what it stored before; returns when it lets clients in."""
        self.begin()
        self.wait_ready()

    def begin(self) -> None:
        """Start it with what it stored before."""
        if not self._server.is_running:
            self._server.start()

    def wait_ready(self) -> None:
        """Return when it lets clients in."""
        self._server.wait_ready(lambda: lets_in(self.url), HANGS_S)

    def join(self, other: Node) -> None:
        """Become a member of the cluster of another node."""
        for command in (["stop_app"], ["reset"], ["join_cluster", other.name], ["start_app"]):
            self.rabbitmqctl(*command)

    def running_nodes(self) -> set[str]:
        """Return the names of the nodes that run, as this one sees it; none where it does not answer."""
        try:
            status = json.loads(self.rabbitmqctl("cluster_status", "--formatter", "json"))
        except ServiceFailedError:  # while it starts, or pauses for want of a majority
            return set()
        return set(status["running_nodes"])

    def kill(self) -> None:
        """End it at once."""
        self._server.kill()

    def close(self) -> None:
        """End it and remove its files."""
        self._server.kill()
        shutil.rmtree(self._home, ignore_errors=True)

    def log_tail(self) -> str:
        """Return the last of its output."""
        return self._server.log_tail()

    def _environment(self, address: str) -> dict[str, str]:
        home = self._home
        tick = f"-kernel net_ticktime {_TICK_S}"
        return {
            "HOME": str(home),
            "RABBITMQ_USE_LONGNAME": "true",
            "RABBITMQ_NODENAME": self.name,
            "RABBITMQ_NODE_IP_ADDRESS": address,
            "RABBITMQ_NODE_PORT": str(USUAL_PORT),
            # One scheduler, which sleeps while there is nothing to do: many nodes share the machine.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"+S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none {tick}",
            "RABBITMQ_MNESIA_BASE": str(home / "mnesia"),
            "RABBITMQ_LOG_BASE": str(home / "log"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "enabled_plugins"),
            "RABBITMQ_CONFIG_FILE": str(home / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": str(home / "rabbitmq-env.conf"),
            "RABBITMQ_PID_FILE": str(home / "pid"),
        }


class Cluster:
    """Nodes that form one cluster; a context manager around their processes.

    Parameters
    ----------
    hosts
        One for each node.
    """

    def __init__(self, hosts: list[Host]) -> None:
        self._hosts = hosts
        self.nodes: list[Node] = []

    def __enter__(self) -> Cluster:
        with contextlib.ExitStack() as closing:
            for host in self._hosts:
                self.nodes.append(Node(host))
                closing.callback(self.nodes[-1].close)
                self.nodes[-1].begin()
            for node in self.nodes:
                node.wait_ready()
            for node in self.nodes[1:]:
                node.join(self.nodes[0])
            self.wait_whole()
            self._closing = closing.pop_all()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._closing.close()

    @property
    def urls(self) -> list[str]:
        """The addresses of all nodes."""
        return [node.url for node in self.nodes]

    def is_whole(self) -> bool:
        """Say whether every node sees every node run."""
        names = {node.name for node in self.nodes}
        return all(node.running_nodes() == names for node in self.nodes)

    def wait_whole(self) -> None:
        """Return when every node sees every node run."""
        wait_until(self.is_whole, HANGS_S, "all nodes in the cluster")

    def leader_of(self, queue: str) -> Node:
        """Return the node that leads a quorum queue, as a node says that answers."""
        listed = json.loads(self.nodes[0].rabbitmqctl("list_queues", "name", "leader", "--formatter", "json"))
        leader = next(row["leader"] for row in listed if row["name"] == queue)
        return next(node for node in self.nodes if node.name == leader)

    def messages(self) -> dict[str, int]:
        """Return how many messages lie in each queue, those in hand among them."""
        listed = json.loads(self.nodes[0].rabbitmqctl("list_queues", "name", "messages", "--formatter", "json"))
        return {row["name"]: int(row["messages"]) for row in listed}
