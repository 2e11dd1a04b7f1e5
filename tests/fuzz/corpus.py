"""Whole data sets to begin with."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from pydicom.dataset import Dataset

from gateway.errors import CannotUnderstandError
from gateway.header import read_data_set, read_part10
from tests.receiving import CT, EXPLICIT, IMPLICIT, encoded, image

BIG_ENDIAN, DEFLATED = "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"
JPEG = "1.2.840.10008.1.2.4.50"
_LARGEST = 1 << 18
LEVEL = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
"""A sequence and an item that do not end, in Explicit VR Little Endian."""
PATIENT_NAME = b"\x10\x00\x10\x00PN"


@dataclass(frozen=True)
class Seed:
    """A data set and what its command says."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    data: bytes


def seeds(odd_files: Path | None) -> list[Seed]:
    """Return made data sets, and the odd files where they are at hand; always in the same order."""
    made = _made()
    if odd_files is not None:
        made += [seed for path in sorted(odd_files.rglob("*")) if path.is_file() and (seed := _of_file(path))]
    return made


def _made() -> list[Seed]:
    whole = image(
        study_uid="2.25.1",
        SOPInstanceUID="2.25.2",
        SpecificCharacterSet=["", "ISO 2022 IR 87"],
        PatientName="Yamada^Tarou=\u5c71\u7530^\u592a\u90ce",
        AccessionNumber="A1",
        StudyDate="20240102",
        NumberOfFrames="2",
        IssuerOfAccessionNumberSequence=[_issuer()],
        RequestAttributesSequence=[_request()],
    )
    found = [_seed(whole, syntax) for syntax in (EXPLICIT, IMPLICIT, BIG_ENDIAN)]
    plain = found[0].data
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    fragments = (
        b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff"
        + b"\xfe\xff\x00\xe0\0\0\0\0"
        + b"\xfe\xff\x00\xe0" + struct.pack("<L", 8) + b"\xff\xd8\xff\xe0\0\0\xff\xd9"
        + b"\xfe\xff\xdd\xe0\0\0\0\0"
    )  # fmt: skip
    found.append(Seed(CT, "2.25.2", DEFLATED, deflater.compress(plain) + deflater.flush()))
    found.append(Seed(CT, "2.25.2", JPEG, plain + fragments))
    for depth in (100, 10_000):
        at = plain.index(PATIENT_NAME)  # behind group 0008
        found.append(Seed(CT, "2.25.2", EXPLICIT, plain[:at] + LEVEL * depth + plain[at:]))
    return found


def _issuer() -> Dataset:
    issuer = Dataset()
    issuer.LocalNamespaceEntityID = "LAB"
    return issuer


def _request() -> Dataset:
    request = Dataset()
    request.RequestedProcedureID = "RP1"
    request.ScheduledProcedureStepID = "SPS1"
    return request


def _seed(data_set: Dataset, syntax: str) -> Seed:
    return Seed(CT, "2.25.2", syntax, encoded(data_set, syntax))


def _of_file(path: Path) -> Seed | None:
    if path.stat().st_size > _LARGEST:
        return None
    with path.open("rb") as stream:
        try:
            part10 = read_part10(stream)
        except CannotUnderstandError:
            return Seed(CT, "2.25.2", IMPLICIT, path.read_bytes())
        stream.seek(part10.data_set_offset)
        data = stream.read()
    try:
        header = read_data_set(BytesIO(data), part10.transfer_syntax_uid)
    except CannotUnderstandError:
        return Seed(CT, "2.25.2", part10.transfer_syntax_uid, data)
    return Seed(header.sop_class_uid, header.sop_instance_uid, part10.transfer_syntax_uid, data)
