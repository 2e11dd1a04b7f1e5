"""The four receivers, each in a folder that is thrown away."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.acceptance.gateway_process import AE_TITLE, GatewayProcess
from tests.services.orthanc import Orthanc
from tests.services.process import Program, ServiceMissingError, free_port, listens, wait_until

GATEWAY, STOCK_PATH, ORTHANC, DCMTK, PYNETDICOM = "gateway", "gateway, stock path", "Orthanc", "dcmtk", "pynetdicom"
_START_S = 30
_LARGEST_PDU = "131072"
_RUN_NOTHING = '[[rules]]\nname = "keep, and run nothing"\nbundles = []\n'


@dataclass(frozen=True)
class Receiver:
    """A receiver that listens."""

    name: str
    port: int
    called_ae: str
    pid: int
    stored: Callable[[], int]
    """How many instances it holds."""


@contextmanager
def gateway(home: Path, **env: str) -> Iterator[Receiver]:
    """Run the role that receives, as an operator runs it: durable, on SQLite, a process for each core."""
    name = STOCK_PATH if "HYBRIDMED_RECEIVE_PATH" in env else GATEWAY
    processes = os.cpu_count() or 1
    env |= {"HYBRIDMED_RECEIVE_PROCESSES": str(processes), "HYBRIDMED_LOG_LEVEL": "WARNING"}
    running = GatewayProcess(home, toml=_RUN_NOTHING, roles="receive", **env)
    running.cli("db", "upgrade")
    try:
        running.start()
        wait_until(lambda: running.running_count("receive") == processes, _START_S, "receiving processes")
        yield Receiver(name, running.dicom_port, AE_TITLE, running.program.pid, lambda: len(running.stored_files()))
    finally:
        running.stop()


@contextmanager
def orthanc(home: Path) -> Iterator[Receiver]:
    """Run Orthanc as a PACS: index in SQLite, files on disk, each instance registered before its answer."""
    pacs = Orthanc(home)
    try:
        pacs.start()
        yield Receiver(ORTHANC, pacs.dicom_port, "ORTHANC", pacs.pid, lambda: _count(home / "storage", "*/*/*"))
    finally:
        pacs.close()


@contextmanager
def dcmtk(home: Path) -> Iterator[Receiver]:
    """Run dcmtk's storescp with a process for each association; it writes files and makes nothing durable."""
    program = shutil.which("storescp")
    if program is None:
        raise ServiceMissingError("storescp is not installed (Debian package: dcmtk)")
    with _program(DCMTK, home, [program, "--fork", "+xa", "-pdu", _LARGEST_PDU, "-od", "{folder}", "{port}"]) as one:
        yield one


@contextmanager
def pynetdicom(home: Path) -> Iterator[Receiver]:
    """Run the storescp that comes with pynetdicom, as it comes; it makes nothing durable."""
    argv = [sys.executable, "-m", "pynetdicom", "storescp", "-q", "-od", "{folder}", "{port}"]
    with _program(PYNETDICOM, home, argv) as one:
        yield one


@contextmanager
def _program(name: str, home: Path, argv: list[str]) -> Iterator[Receiver]:
    folder = home / "received"
    folder.mkdir(parents=True)
    port = free_port()
    places = {"{folder}": str(folder), "{port}": str(port)}
    program = Program([places.get(one, one) for one in argv], log=home / "log", cwd=home)
    try:
        program.start()
        program.wait_ready(lambda: listens(port), _START_S)
        yield Receiver(name, port, "ANY-SCP", program.pid, lambda: _count(folder, "*"))
    finally:
        program.kill()


def _count(folder: Path, pattern: str) -> int:
    return sum(path.is_file() for path in folder.glob(pattern))
