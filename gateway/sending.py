"""Files and folders to a Storage SCP, as a modality sends: `hybridmed send` and the demonstration."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.dataset import FileMetaDataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info

from gateway.config import DicomAddress
from gateway.delivery.dimse import DimseSender
from gateway.delivery.sender import Outgoing
from gateway.delivery.status import is_stored
from gateway.errors import DestinationAwayError

_MOST_KINDS = 60
"""Pairs of SOP class and transfer syntax in one association: each takes up to two of 128 presentation contexts."""
_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class SendOutcome:
    """What became of one file."""

    path: Path
    is_stored: bool
    reason: str | None = None


def dicom_files(paths: Iterable[Path]) -> list[Path]:
    """Return the Part 10 files among files and folders, sorted; a file named by itself is taken in any case."""
    found: list[Path] = []
    for path in paths:
        inside = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else []
        found += [each for each in inside if pydicom.misc.is_dicom(each)] if path.is_dir() else [path]
    return found


def send_files(address: DicomAddress, calling_ae: str, files: Sequence[Path]) -> Iterator[SendOutcome]:
    """Send files in their own transfer syntax and yield what became of each, in an order of the sender's choosing.

    Raises
    ------
    DestinationAwayError
        The peer does not answer, or the association ended; what was not yielded was not sent.
    """
    readable: list[tuple[Path, str, Outgoing]] = []
    for path in files:
        meta = _meta(path)
        if meta is None:
            yield SendOutcome(path, is_stored=False, reason="not a DICOM Part 10 file")
            continue
        sop_class, sop_instance = str(meta.MediaStorageSOPClassUID), str(meta.MediaStorageSOPInstanceUID)
        kind = f"{sop_class} {meta.TransferSyntaxUID}"
        readable.append((path, kind, Outgoing(path.name, path, sop_class, sop_instance)))
    kinds = sorted({kind for _, kind, _ in readable})
    for first in range(0, len(kinds), _MOST_KINDS):
        batch = set(kinds[first : first + _MOST_KINDS])
        yield from _send_batch(address, calling_ae, [each for _, kind, each in readable if kind in batch])


def _send_batch(address: DicomAddress, calling_ae: str, objects: Sequence[Outgoing]) -> Iterator[SendOutcome]:
    sender = DimseSender(address, calling_ae, _TIMEOUT_S)
    try:
        with sender.associated(objects) as association:
            for each in objects:
                status = sender.store(association, each)
                if status is None:
                    yield SendOutcome(each.path, is_stored=False, reason="no such object is accepted")
                else:
                    reason = None if is_stored(status) else f"status 0x{status:04X}"
                    yield SendOutcome(each.path, is_stored(status), reason)
    except DestinationAwayError as error:
        raise DestinationAwayError(f"{address}: {error}") from error


def _meta(path: Path) -> FileMetaDataset | None:
    try:
        meta = read_file_meta_info(path)
    except (InvalidDicomError, OSError, EOFError):
        return None
    wanted = ("MediaStorageSOPClassUID", "MediaStorageSOPInstanceUID", "TransferSyntaxUID")
    return meta if all(name in meta for name in wanted) else None
