"""Orthanc and the gateway, filled by C-STORE; and how much memory they took at most."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil

from tests.acceptance.gateway_process import GatewayProcess, storescu
from tests.benchmarks.dicomweb.cases import Cases
from tests.services.orthanc import Orthanc
from tests.services.process import wait_until

LIMITS_OFF = {
    f"HYBRIDMED_ACCESS__{name}": "1000000"
    for name in ("REQUESTS_PER_S", "BURST", "ADDRESS_REQUESTS_PER_S", "ADDRESS_BURST")
}
"""One client asks for as much as it can get."""
WEB_PROCESSES = 2
RUN_NOTHING = '[[rules]]\nname = "keep, and run nothing"\nbundles = []\n'
_FILL_S = 900
_MIB = 1 << 20


@dataclass(frozen=True)
class Server:
    """A server that holds the cases."""

    name: str
    port: int
    root: str
    """Path of its DICOMweb services."""
    pids: tuple[int, ...]
    """The processes that answer HTTP."""

    def forget_peak(self) -> None:
        """Let the highest resident memory count from now (proc(5), clear_refs)."""
        for pid in self._all_pids():
            Path(f"/proc/{pid}/clear_refs").write_text("5")

    def peak_mib(self) -> float:
        """Return the highest resident memory since then, in MiB, of all its processes."""
        return sum(_peak_kib(pid) for pid in self._all_pids()) / 1024

    def _all_pids(self) -> list[int]:
        return [each for pid in self.pids for each in (pid, *(c.pid for c in psutil.Process(pid).children(True)))]


def _peak_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


@contextmanager
def orthanc(home: Path, cases: Cases) -> Iterator[Server]:
    """Run Orthanc with the cases."""
    pacs = Orthanc(home)
    try:
        pacs.start()
        _fill(pacs.dicom_address, cases)
        url = urlsplit(pacs.dicomweb_url)
        server = Server("Orthanc", pacs.http_port, url.path, (pacs.pid,))
        _wait_until_full(server, cases)
        yield server
    finally:
        pacs.close()


@contextmanager
def gateway(home: Path, cases: Cases) -> Iterator[Server]:
    """Run the gateway with the cases; it processes nothing."""
    running = GatewayProcess(
        home,
        toml=RUN_NOTHING,
        roles="receive,dispatch,web",
        HYBRIDMED_QUIET_S="1",
        HYBRIDMED_WEB_PROCESSES=str(WEB_PROCESSES),
        **LIMITS_OFF,
    )
    try:
        running.start()
        _fill(running.address, cases)
        server = Server("gateway", running.http_port, "/dicomweb", running.role_pids("web", WEB_PROCESSES))
        _wait_until_full(server, cases)
        yield server
    finally:
        running.stop()


def _fill(address: str, cases: Cases) -> None:
    folder = cases.files[0].parent
    sent = storescu(address, [folder], "+sd", "+r")
    if sent.returncode != 0:
        raise RuntimeError(f"dcmsend to {address} failed: {sent.stderr[-500:]}")


def _wait_until_full(server: Server, cases: Cases) -> None:
    def is_full() -> bool:
        root = f"http://127.0.0.1:{server.port}{server.root}"
        studies = httpx.get(f"{root}/studies", params={"limit": "100000"}, timeout=60, trust_env=False)
        of_large = f"{root}/studies/{cases.large_study}/instances"
        slices = httpx.get(of_large, params={"limit": "100000"}, timeout=60, trust_env=False)
        if studies.status_code != httpx.codes.OK or slices.status_code != httpx.codes.OK:
            return False
        return len(studies.json()) == cases.studies and len(slices.json()) == len(cases.files) - cases.studies + 1

    wait_until(is_full, _FILL_S, f"{server.name} holds all {cases.studies} studies")
