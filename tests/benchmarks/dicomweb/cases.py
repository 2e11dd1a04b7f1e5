"""The studies that both servers hold: small ones, and one with a series of many slices."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

_ROOT = "1.2.826.0.1.3680043.10.1461.7"
_SMALL = 16


@dataclass(frozen=True)
class Cases:
    """What is sent."""

    files: list[Path]
    studies: int
    large_study: str
    large_series: str
    large_bytes: int
    """Of the files of the large series."""


def make(folder: Path, studies: int, slices: int, side: int) -> Cases:
    """Write `studies` CT studies, the last of which has `slices` slices of `side` x `side` pixels."""
    rng = np.random.default_rng(7)
    folder.mkdir(parents=True)
    files = []
    for number in range(1, studies):
        files.append(folder / f"{number}.dcm")
        _write(files[-1], number, 1, rng.integers(0, 4096, (_SMALL, _SMALL), dtype=np.uint16))
    large = []
    for position in range(1, slices + 1):
        large.append(folder / f"large-{position}.dcm")
        _write(large[-1], studies, position, rng.integers(0, 4096, (side, side), dtype=np.uint16))
    return Cases(
        files=[*files, *large],
        studies=studies,
        large_study=f"{_ROOT}.{studies}",
        large_series=f"{_ROOT}.{studies}.1",
        large_bytes=sum(file.stat().st_size for file in large),
    )


def _write(path: Path, study: int, position: int, pixels: np.ndarray) -> None:
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.SOPClassUID, image.SOPInstanceUID = CTImageStorage, f"{_ROOT}.{study}.1.{position}"
    image.StudyInstanceUID, image.SeriesInstanceUID = f"{_ROOT}.{study}", f"{_ROOT}.{study}.1"
    image.PatientName, image.PatientID = f"Bench^Number{study:05}", f"B{study:05}"
    image.PatientBirthDate, image.PatientSex = "19600101", "O"
    image.AccessionNumber, image.StudyID = f"A{study:05}", str(study)
    image.StudyDate, image.StudyTime = f"2025{1 + study % 12:02}{1 + study % 28:02}", f"{study % 24:02}0000"
    image.StudyDescription, image.SeriesDescription = "Chest", "5 mm"
    image.ReferringPhysicianName = "Refer^Doctor"
    image.Modality, image.SeriesNumber, image.InstanceNumber = "CT", 1, position
    image.Rows, image.Columns = pixels.shape
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 12, 11, 0
    image.PixelData = pixels.tobytes()
    image.save_as(path, enforce_file_format=True)
