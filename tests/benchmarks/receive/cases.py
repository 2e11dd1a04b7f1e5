"""The data sets that are sent, as templates: the sender puts other UIDs of the same length into their place."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from tests.benchmarks.receive.sender import RUN_DIGITS, UID_ROOT, template_uid

CT = "1.2.840.10008.5.1.4.1.1.2"
MULTI_FRAME = "1.2.840.10008.5.1.4.1.1.7.3"
_KIB, _MIB = 1 << 10, 1 << 20


@dataclass(frozen=True)
class Case:
    """Instances of one size."""

    name: str
    sop_class_uid: str
    template: Path
    """A data set in Explicit VR Little Endian."""
    instances: int
    """0: one for each association."""

    def count(self, associations: int) -> int:
        """Return how many instances are sent."""
        return self.instances or associations


def make(folder: Path, is_quick: bool) -> list[Case]:
    """Write the templates."""
    folder.mkdir(parents=True)
    large_mib, share = (16, 10) if is_quick else (200, 1)
    plan = (
        ("0.5 MiB", CT, 512 * _KIB, 1, 500 // share),
        ("20 KiB", CT, 20 * _KIB, 1, 2000 // share),
        (f"{large_mib} MiB", MULTI_FRAME, 512 * _KIB, 2 * large_mib, 0),
    )
    return [_case(folder, *each) for each in plan]


def _case(folder: Path, name: str, sop_class_uid: str, frame_bytes: int, frames: int, instances: int) -> Case:  # noqa: PLR0913, PLR0917 # one row of the plan
    path = folder / f"{name.replace(' ', '')}.bin"
    path.write_bytes(_data_set(sop_class_uid, frame_bytes, frames))
    return Case(name, sop_class_uid, path, instances)


def _data_set(sop_class_uid: str, frame_bytes: int, frames: int) -> bytes:
    instance_uid = template_uid()
    study_uid = instance_uid[: len(UID_ROOT) + RUN_DIGITS]
    data_set = Dataset()
    data_set.SOPClassUID = sop_class_uid
    data_set.SOPInstanceUID = instance_uid
    data_set.StudyDate = data_set.SeriesDate = "20240102"
    data_set.StudyTime = data_set.SeriesTime = "101500"
    data_set.AccessionNumber = "A1"
    data_set.Modality = "CT"
    data_set.StudyDescription = "Benchmark"
    data_set.PatientName = "Doe^Jane"
    data_set.PatientID = "BENCHMARK"
    data_set.PatientBirthDate = "19700101"
    data_set.PatientSex = "O"
    data_set.StudyInstanceUID = study_uid
    data_set.SeriesInstanceUID = f"{study_uid}.1"
    data_set.StudyID = "1"
    data_set.SeriesNumber = data_set.InstanceNumber = 1
    data_set.ImagePositionPatient = [0, 0, 0]
    data_set.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    data_set.SamplesPerPixel = 1
    data_set.PhotometricInterpretation = "MONOCHROME2"
    if frames > 1:
        data_set.NumberOfFrames = frames
    data_set.Columns = 512
    data_set.Rows = frame_bytes // 1024
    data_set.BitsAllocated = data_set.BitsStored = 16
    data_set.HighBit = 15
    data_set.PixelRepresentation = 0
    data_set.PixelData = random.Random(1).randbytes(frame_bytes) * frames  # pixels, not secrets
    buffer = DicomBytesIO()
    buffer.is_implicit_VR, buffer.is_little_endian = False, True
    write_dataset(buffer, data_set)
    return buffer.getvalue()
