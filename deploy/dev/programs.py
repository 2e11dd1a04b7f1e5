"""See that the programs are there that the tests run: `python -m deploy.dev.programs`.

What is missing is installed by apt where we are root or may become root without a question. PostgreSQL and RabbitMQ
may come from a container engine instead. Whatever is missing then is named, and the exit status is 1.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.services import container, orthanc, postgres, rabbitmq
from tests.services.process import ServiceMissingError

PIXELMED_JAR = Path("/usr/share/java/pixelmed.jar")


@dataclass(frozen=True)
class Requirement:
    """A program that the tests run."""

    name: str
    """What it is called in messages."""

    packages: tuple[str, ...]
    """Debian and Ubuntu packages that bring it."""

    is_met: Callable[[], bool]
    """Whether it is there."""

    runs_in_container: bool = False
    """Whether the tests can run it from a container instead."""


def on_path(*programs: str) -> Callable[[], bool]:
    """Return a check for programs on the search path."""
    return lambda: all(shutil.which(program) for program in programs)


def has_orthanc() -> bool:
    """Return whether Orthanc and its DICOMweb plug-in are installed."""
    try:
        orthanc.program()
    except ServiceMissingError:
        return False
    return True


REQUIREMENTS = (
    Requirement("dcmtk", ("dcmtk",), on_path("storescu", "dcmsend", "dsrdump", "echoscu", "storescp")),
    Requirement("ip, for hosts in network namespaces", ("iproute2",), on_path("ip")),
    Requirement("OpenSSL", ("openssl",), on_path("openssl")),
    Requirement("dicom3tools", ("dicom3tools",), on_path("dciodvfy", "dcentvfy")),
    Requirement("Java", ("default-jre-headless",), on_path("java")),
    Requirement("PixelMed", ("libpixelmed-java",), PIXELMED_JAR.exists),
    Requirement("Node.js, for the FHIR validators", ("nodejs", "npm"), on_path("node", "npm")),
    Requirement("promtool, for the alert rules", ("prometheus",), on_path("promtool")),
    Requirement("Chromium", ("chromium",), on_path("chromium")),
    Requirement("Orthanc with DICOMweb", ("orthanc", "orthanc-dicomweb"), has_orthanc),
    Requirement(
        "PostgreSQL",
        ("postgresql",),
        lambda: postgres.can_create_databases(postgres.USUAL_PORT) or postgres.programs() is not None,
        runs_in_container=True,
    ),
    # Beside the one that listens the tests need one that they may stop: the program itself.
    Requirement("RabbitMQ", ("rabbitmq-server",), lambda: rabbitmq.program() is not None, runs_in_container=True),
)


def unmet(requirements: Sequence[Requirement]) -> list[Requirement]:
    """Return the requirements that are not met now."""
    return [requirement for requirement in requirements if not requirement.is_met()]


def packages_of(requirements: Sequence[Requirement]) -> list[str]:
    """Return the packages that bring these requirements."""
    return [package for requirement in requirements for package in requirement.packages]


def ensure(
    requirements: Sequence[Requirement],
    install: Callable[[list[str]], None] | None,
    has_engine: Callable[[], bool],
) -> str | None:
    """Bring what is missing.

    Parameters
    ----------
    requirements
        What must be there.
    install
        Installs packages; None where that is not allowed.
    has_engine
        Whether a container engine answers.

    Returns
    -------
    str or None
        What is still missing and how to bring it, as a message; None if everything is there.
    """
    missing = unmet(requirements)
    if missing and install is not None:
        install(packages_of(missing))
        missing = unmet(missing)
    if missing and has_engine():
        missing = [requirement for requirement in missing if not requirement.runs_in_container]
    if not missing:
        return None
    names = ", ".join(requirement.name for requirement in missing)
    return f"missing: {names}\ninstall: sudo apt-get install {' '.join(packages_of(missing))}"


def apt_prefix() -> list[str] | None:
    """Return what to put before apt-get to run it as root; None if that is not possible."""
    if shutil.which("apt-get") is None:
        return None
    if os.getuid() == 0:
        return []
    sudo = shutil.which("sudo")
    if sudo and subprocess.run([sudo, "-n", "true"], capture_output=True, check=False).returncode == 0:
        return [sudo, "-n"]
    return None


def install_by_apt(prefix: list[str], packages: list[str]) -> None:
    """Install packages quietly; the output is shown when that fails."""
    print("programs: installing " + ", ".join(packages), flush=True)
    quietly = [*prefix, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "-o", "Dpkg::Use-Pty=0"]
    for arguments in (["update"], ["install", "--no-install-recommends", *packages]):
        ended = subprocess.run([*quietly, *arguments], capture_output=True, text=True, check=False)
        if ended.returncode != 0:
            print(ended.stdout + ended.stderr, file=sys.stderr)


def main() -> None:
    """Bring what is missing on this machine, or say what it is."""
    prefix = apt_prefix()
    install = None if prefix is None else lambda packages: install_by_apt(prefix, packages)
    message = ensure(REQUIREMENTS, install, lambda: container.engine() is not None)
    if message is not None:
        sys.exit(message)
    print("programs: all there")


if __name__ == "__main__":
    main()
