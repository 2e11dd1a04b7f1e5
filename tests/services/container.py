"""A service in a container, for machines that have an engine but not the program."""

import shutil
import subprocess
import uuid
from collections.abc import Mapping

from tests.services.process import LOOPBACK, free_port, run

_ENGINES = ("docker", "podman")
_PULL_TIMEOUT_S = 300


def engine() -> str | None:
    """Return the path of a container engine that answers, or None."""
    for name in _ENGINES:
        path = shutil.which(name)
        if path and subprocess.run([path, "info"], capture_output=True, timeout=60, check=False).returncode == 0:
            return path
    return None


class Container:
    """One container whose service port is published on a loopback port that stays the same over stop and start.

    Parameters
    ----------
    engine_path
        The engine's program.
    image
        Image to run.
    port
        Port that the service listens on inside.
    env
        Variables set inside.
    """

    def __init__(self, engine_path: str, image: str, *, port: int, env: Mapping[str, str] | None = None) -> None:
        self._engine = engine_path
        self._image = image
        self._inner_port = port
        self._env = dict(env or {})
        self._name = f"hybridmed-test-{uuid.uuid4().hex[:12]}"
        self._exists = False
        self.port = free_port()

    def start(self) -> None:
        """Create the container, or start it again after a stop."""
        if self._exists:
            self._run("start", self._name)
            return
        settings = [argument for key, value in self._env.items() for argument in ("--env", f"{key}={value}")]
        published = f"{LOOPBACK}:{self.port}:{self._inner_port}"
        self._run("run", "--detach", "--name", self._name, "--publish", published, *settings, self._image)
        self._exists = True

    def stop(self) -> None:
        """Stop the service and keep its data."""
        self._run("stop", self._name)

    def kill(self) -> None:
        """End the service at once and keep its data."""
        self._run("kill", self._name)

    def remove(self) -> None:
        """Remove the container and its data."""
        if self._exists:
            self._run("rm", "--force", "--volumes", self._name)
            self._exists = False

    def command(self, *argv: str) -> list[str]:
        """Return the command line that runs a program inside."""
        return [self._engine, "exec", self._name, *argv]

    def _run(self, *arguments: str) -> None:
        run(self._engine, *arguments, timeout_s=_PULL_TIMEOUT_S)
