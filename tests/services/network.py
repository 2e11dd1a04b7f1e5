"""Hosts of a network of our own, on one machine: network namespaces on one bridge.

Each host has its own address, name, ports and process ids. What is sent to one that is cut off or without power is
lost without a word, as on a real network: nobody is told that a connection has ended.

Needs root and the programs `ip` (Debian package iproute2) and `unshare`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from tests.services.process import Place, ServiceMissingError, run

_NETWORK = "10.77"
_NAMED = 'hostname "$0" && exec "$@"'
"""The program of a host is process 1 of its own process ids: when that is killed the kernel ends all others."""
_APART = ("unshare", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc")


def why_not() -> str:
    """Return why hosts cannot be made here; '' where they can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    missing = [program for program in ("ip", "unshare") if shutil.which(program) is None]
    return f"missing: {', '.join(missing)} (Debian packages: iproute2, util-linux)" if missing else ""


class Network:
    """A bridge and the hosts on it; a context manager around all of them.

    Parameters
    ----------
    number
        Third part of the addresses; one network of a number at a time on a machine.
    """

    def __init__(self, number: int = 0) -> None:
        self._base = f"{_NETWORK}.{number}"
        self.gate = f"{self._base}.1"
        """Address of this process on it."""
        self._prefix = f"hm{number}-"
        self._bridge = f"{self._prefix}bridge"
        self._closing = contextlib.ExitStack()
        self._count = 0

    def __enter__(self) -> Network:
        reason = why_not()
        if reason:
            raise ServiceMissingError(reason)
        if Path("/sys/class/net", self._bridge).exists():
            raise ServiceMissingError(f"the network {self._bridge} is there: of a run that goes on, or was killed")
        with contextlib.ExitStack() as closing:
            run("ip", "link", "add", self._bridge, "type", "bridge")
            closing.callback(run, "ip", "link", "delete", self._bridge)
            run("ip", "address", "add", f"{self.gate}/24", "dev", self._bridge)
            run("ip", "link", "set", self._bridge, "up")
            self._closing = closing.pop_all()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._closing.close()

    @contextlib.contextmanager
    def _made(self, name: str) -> Iterator[Host]:
        self._count += 1
        host = Host(name, f"{self._base}.{10 + self._count}", self._prefix, f"{self._prefix}{self._count}")
        with contextlib.ExitStack() as closing:
            run("ip", "netns", "add", host.namespace)
            closing.callback(run, "ip", "netns", "delete", host.namespace)
            closing.enter_context(host.connected(self._bridge))
            yield host

    def host(self, name: str) -> Host:
        """Make a host; it goes with the network."""
        return self._closing.enter_context(self._made(name))


class Host:
    """A host; made by `Network.host`.

    Parameters
    ----------
    name
        Its host name.
    address
        Its only address besides the loopback.
    prefix
        Of the network; the namespace has it before the host's name.
    cable
        Name of the outer end of its link.
    """

    def __init__(self, name: str, address: str, prefix: str, cable: str) -> None:
        self.name = name
        self.address = address
        self.namespace = f"{prefix}{name}"
        self._cable = cable

    @property
    def place(self) -> Place:
        """Where a program of this host runs; it ends with all that it started."""
        return Place(self.address, (*self.inside, *_APART, "sh", "-c", _NAMED, self.name))

    @property
    def inside(self) -> tuple[str, ...]:
        """What the command line of a short program on this host begins with; it shares our process ids."""
        return ("ip", "netns", "exec", self.namespace)

    @contextlib.contextmanager
    def connected(self, bridge: str) -> Iterator[None]:
        """Give it its cable and its address, and take the cable away afterwards: the kernel would do so late."""
        inside = ("ip", "-n", self.namespace)
        run("ip", "link", "add", self._cable, "type", "veth", "peer", "name", "eth0", "netns", self.namespace)
        try:
            run("ip", "link", "set", self._cable, "master", bridge, "up")
            run(*inside, "address", "add", f"{self.address}/24", "dev", "eth0")
            run(*inside, "link", "set", "eth0", "up")
            run(*inside, "link", "set", "lo", "up")
            yield
        finally:
            run("ip", "link", "delete", self._cable)

    def cut_off(self) -> None:
        """Pull the cable: no packet in or out, no word to anybody."""
        run("ip", "link", "set", self._cable, "down")

    def plug_in(self) -> None:
        """Put the cable back; does nothing where it is in."""
        run("ip", "link", "set", self._cable, "up")
