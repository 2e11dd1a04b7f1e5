"""A private Orthanc as the PACS of a test: it receives by C-STORE and STOW-RS, and sends by C-STORE."""

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

import httpx

from tests.services.process import HANGS_S, LOOPBACK, Program, ServiceMissingError, free_port

AE_TITLE = "ORTHANC"
_DICOMWEB_PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
_REQUEST_TIMEOUT_S = 120


class Orthanc:
    """An Orthanc process on free ports, with storage in a folder of the test.

    Parameters
    ----------
    home
        Folder for its configuration, storage and log; what it stores survives `stop` and `start`.
    """

    def __init__(self, home: Path) -> None:
        self._program_path = program()
        home.mkdir(parents=True, exist_ok=True)
        self.dicom_port = free_port()
        self.http_port = free_port()
        self._client = httpx.Client(base_url=self.http_url, timeout=_REQUEST_TIMEOUT_S, trust_env=False)
        configuration = home / "orthanc.json"
        configuration.write_text(json.dumps(self._configuration(home)))
        self._process = Program([self._program_path, str(configuration)], log=home / "orthanc.log", cwd=home)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def dicom_address(self) -> str:
        """The address as `HYBRIDMED_DESTINATIONS` and `hybridmed send --to` spell it: AET@host:port."""
        return f"{AE_TITLE}@{LOOPBACK}:{self.dicom_port}"

    @property
    def http_url(self) -> str:
        """The root of Orthanc's own REST interface."""
        return f"http://{LOOPBACK}:{self.http_port}"

    @property
    def dicomweb_url(self) -> str:
        """The root of its DICOMweb services."""
        return f"{self.http_url}/dicom-web"

    def start(self) -> None:
        """Start the process; returns when it answers."""
        if not self._process.is_running:
            self._process.start()
            self._process.wait_ready(self._answers, HANGS_S)

    def stop(self) -> None:
        """Stop the process; what it stored stays."""
        self._process.stop()

    def close(self) -> None:
        """End the process for good."""
        self._process.stop()
        self._client.close()

    def list_instances(self, **tags: str) -> list[str]:
        """Return Orthanc's ids of the instances whose tags have these values, such as `Modality="SEG"`."""
        query = {"Level": "Instance", "Query": tags}
        found = self._request("POST", "/tools/find", json=query).json()
        return [str(instance) for instance in found]

    def get_file(self, instance: str) -> bytes:
        """Return one instance as a DICOM file."""
        return self._request("GET", f"/instances/{instance}/file").content

    def save_files(self, folder: Path, **tags: str) -> list[Path]:
        """Write the instances whose tags have these values into a folder, one file each, and return the files."""
        folder.mkdir(parents=True, exist_ok=True)
        files = []
        for instance in sorted(self.list_instances(**tags)):
            files.append(folder / f"{instance}.dcm")
            files[-1].write_bytes(self.get_file(instance))
        return files

    def upload(self, file: Path) -> str:
        """Store a DICOM file through the REST interface and return Orthanc's id of the instance."""
        return str(self._request("POST", "/instances", content=file.read_bytes()).json()["ID"])

    def send(self, instances: list[str], *, ae_title: str, port: int) -> None:
        """Send instances by C-STORE to an application entity on the loopback interface; returns when all are sent."""
        peer = {"AET": ae_title, "Host": LOOPBACK, "Port": port, "Manufacturer": "Generic"}
        self._request("PUT", "/modalities/peer", json=peer)
        self._request("POST", "/modalities/peer/store", json={"Resources": instances, "Synchronous": True})

    def query(self, level: str, tags: dict[str, str], *, ae_title: str, port: int) -> tuple[str, list[dict[str, Any]]]:
        """Ask an application entity by C-FIND; return the query's id and the answers, tag name -> value."""
        peer = {"AET": ae_title, "Host": LOOPBACK, "Port": port, "Manufacturer": "Generic"}
        self._request("PUT", "/modalities/peer", json=peer)
        made = self._request("POST", "/modalities/peer/query", json={"Level": level, "Query": tags}).json()["ID"]
        count = len(self._request("GET", f"/queries/{made}/answers").json())
        answers = [
            self._request("GET", f"/queries/{made}/answers/{each}/content", params={"simplify": ""}).json()
            for each in range(count)
        ]
        return str(made), answers

    def retrieve(self, query: str) -> None:
        """Let an application entity send what a query found to this Orthanc by C-MOVE; returns when all is here."""
        self._request("POST", f"/queries/{query}/retrieve", json={"TargetAet": AE_TITLE, "Synchronous": True})

    def _answers(self) -> bool:
        with contextlib.suppress(httpx.TransportError):
            return self._request("GET", "/system").is_success
        return False

    def _request(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        response = self._client.request(method, path, **arguments)
        response.raise_for_status()
        return response

    def _configuration(self, home: Path) -> dict[str, object]:
        return {
            "Name": "HybridMed tests",
            "StorageDirectory": str(home / "storage"),
            "IndexDirectory": str(home / "storage"),
            "Plugins": [str(_DICOMWEB_PLUGIN)],
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "HttpPort": self.http_port,
            "DicomPort": self.dicom_port,
            "DicomAet": AE_TITLE,
            "DicomCheckCalledAet": False,
            "DicomAlwaysAllowEcho": True,
            "DicomAlwaysAllowStore": True,
            "UnknownSopClassAccepted": True,
            "OverwriteInstances": True,
            "StoreDicom": True,
            "StableAge": 1,
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "EnableMetadataCache": False},
        }


def program() -> str:
    """Return the path of the installed program.

    Raises
    ------
    ServiceMissingError
        If Orthanc or its DICOMweb plug-in is not installed.
    """
    path = shutil.which("Orthanc", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
    if path is None or not _DICOMWEB_PLUGIN.exists():
        raise ServiceMissingError("Orthanc with DICOMweb is not installed (Debian packages: orthanc, orthanc-dicomweb)")
    return path
