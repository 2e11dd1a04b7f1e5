"""A DICOMweb server over a store, that takes instances; and what a client of it sends and reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from email.parser import BytesParser
from io import BytesIO
from pathlib import Path

import httpx
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian
from starlette.applications import Starlette
from starlette.routing import Mount

from gateway.receive.contexts import storage_classes
from gateway.services import Counters, Heartbeat
from gateway.store import Store
from gateway.web.dicomweb import create_app
from gateway.web.intake import StowIntake, StowLimits, Taken, known_transfer_syntaxes
from tests.unit.web.serving import served

DICOM_PARTS = 'multipart/related; type="application/dicom"'
AS_STORED = f"{DICOM_PARTS}; transfer-syntax=*"
STORE_TYPE = {"Content-Type": f"{DICOM_PARTS}; boundary=BB"}
LIMITS = StowLimits(reserve_bytes=0, max_instance_bytes=1 << 30, timeout_s=60)


@contextmanager
def dicomweb(store: Store, limits: StowLimits = LIMITS) -> Iterator[httpx.Client]:
    """Serve DICOMweb with an open intake; the client's base is `…/dicomweb/`."""
    heartbeat = Heartbeat(store, "web", Counters())
    intake = StowIntake(store, heartbeat, limits, Taken("HYBRIDMED", storage_classes(), known_transfer_syntaxes()))
    with heartbeat, intake, served(Starlette(routes=[Mount("/dicomweb", create_app(store, intake=intake))])) as client:
        client.base_url = client.base_url.join("/dicomweb/")
        yield client


def body(files: Sequence[bytes]) -> bytes:
    """Return a store request's body, its boundary 'BB'."""
    parts = [b"--BB\r\nContent-Type: application/dicom\r\n\r\n" + one + b"\r\n" for one in files]
    return b"".join(parts) + b"--BB--\r\n"


def store_files(client: httpx.Client, files: Sequence[bytes], study_uid: str = "") -> httpx.Response:
    """Store Part 10 files."""
    path = f"studies/{study_uid}" if study_uid else "studies"
    return client.post(path, content=body(files), headers=STORE_TYPE)


def store_paths(client: httpx.Client, paths: Sequence[Path]) -> None:
    """Store files of the disk; all must be taken."""
    answer = store_files(client, [path.read_bytes() for path in paths])
    assert answer.status_code == 200, answer.text


def as_file(data_set: Dataset) -> bytes:
    """Return a data set as a Part 10 file in Explicit VR Little Endian."""
    data_set.file_meta = FileMetaDataset()
    data_set.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data_set.file_meta.MediaStorageSOPClassUID = UID(str(data_set.SOPClassUID))
    data_set.file_meta.MediaStorageSOPInstanceUID = UID(str(data_set.SOPInstanceUID))
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, data_set, enforce_file_format=True)
    return buffer.getvalue()


def parts(answer: httpx.Response) -> list[tuple[Mapping[str, str], bytes]]:
    """Return headers and body of each part, read by Python's own parser of messages."""
    head = f"Content-Type: {answer.headers['content-type']}\r\n\r\n".encode()
    message = BytesParser().parsebytes(head + answer.content)
    assert message.is_multipart()
    return [(dict(part.items()), part.get_payload(decode=True)) for part in message.get_payload()]


def instance_path(data_set: Dataset) -> str:
    """Return the path of an instance below the root."""
    return (
        f"studies/{data_set.StudyInstanceUID}/series/{data_set.SeriesInstanceUID}/instances/{data_set.SOPInstanceUID}"
    )
