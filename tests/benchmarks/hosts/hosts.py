"""Network namespaces as hosts on one bridge; services of the machine reached through doors that can be shut."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from pathlib import Path

from tests.services.process import Program, run

NETWORK = "10.77.0"
GATE = f"{NETWORK}.1"
_BRIDGE = "hm-bridge"


class Door:
    """A port of the bridge that leads to a service on the loopback; shut, the service is away for all hosts."""

    def __init__(self, port: int, target: str, folder: Path) -> None:
        listening = f"TCP-LISTEN:{port},bind={GATE},reuseaddr,fork"
        self._program = Program(["socat", listening, f"TCP:{target}"], log=folder / f"door-{port}.log", env={})

    def open(self) -> None:
        """Let hosts in."""
        self._program.start()

    def shut(self) -> None:
        """End all connections and take no new ones."""
        self._program.kill()


class Network:
    """The bridge; a context manager."""

    def __enter__(self) -> Network:
        run("ip", "link", "add", _BRIDGE, "type", "bridge")
        run("ip", "address", "add", f"{GATE}/24", "dev", _BRIDGE)
        run("ip", "link", "set", _BRIDGE, "up")
        return self

    def __exit__(self, *_exception: object) -> None:
        run("ip", "link", "delete", _BRIDGE)


class Host:
    """One role in a namespace with an address of its own.

    Parameters
    ----------
    name, number
        Of the host; the number is the last part of its address.
    role
        What runs there.
    folder
        Its data folder and log; no other host sees it.
    env
        Settings.
    """

    def __init__(self, name: str, number: int, role: str, folder: Path, env: dict[str, str]) -> None:
        self.name = name
        self.address = f"{NETWORK}.{number}"
        self._link = f"hm-{number}"
        self._namespace = f"hm-{name}"
        folder.mkdir()
        settings = {**env, "HYBRIDMED_DATA_DIR": str(folder / "data"), "HYBRIDMED_BIND": self.address}
        argv = ["ip", "netns", "exec", self._namespace, sys.executable, "-m", "gateway", "serve", "--only", role]
        self._program = Program(argv, log=folder / "log", env=settings, cwd=Path.cwd())
        self.log = folder / "log"

    def connect(self) -> None:
        """Make the namespace and its link."""
        inside = ("ip", "-n", self._namespace)
        run("ip", "netns", "add", self._namespace)
        run("ip", "link", "add", self._link, "type", "veth", "peer", "name", "eth0", "netns", self._namespace)
        run("ip", "link", "set", self._link, "master", _BRIDGE, "up")
        run(*inside, "address", "add", f"{self.address}/24", "dev", "eth0")
        run(*inside, "link", "set", "eth0", "up")
        run(*inside, "link", "set", "lo", "up")

    def start(self) -> None:
        """Start the role."""
        self._program.start()

    def listens(self, port: int) -> bool:
        """Say whether a port of the host takes connections."""
        with contextlib.suppress(OSError), socket.create_connection((self.address, port), timeout=1):
            return True
        return False

    def kill(self) -> None:
        """End it as a power cut does."""
        self._program.kill()

    def cut_off(self) -> None:
        """Pull the cable: no packet in or out, no word to anybody."""
        run("ip", "link", "set", self._link, "down")

    def plug_in(self) -> None:
        """Put the cable back."""
        run("ip", "link", "set", self._link, "up")

    def remove(self) -> None:
        """End everything and remove the namespace."""
        self._program.kill()
        run("ip", "netns", "delete", self._namespace)


def require_root() -> None:
    """Exit with a sentence where namespaces cannot be made."""
    if os.geteuid() != 0:
        sys.exit("namespaces need root")
