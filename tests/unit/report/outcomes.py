"""Outcomes and small source series for the tests of `gateway.report`."""

import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
)

from gateway.report.assignment import Assignment, ObjectReference
from inference.findings import (
    Algorithm,
    ClassProbability,
    Code,
    Finding,
    Findings,
    HeatMap,
    Measurement,
    Segment,
    SourceFrame,
)

ALGORITHM = Algorithm(
    name="test-model",
    version="1.2.3",
    manufacturer="HybridMed Gateway contributors",
    family=Code("123109", "DCM", "Artificial Intelligence"),
    weights_digest="ab" * 32,
)
LUNG = Code("39607008", "SCT", "Lung")
LEFT, RIGHT = Code("7771000", "SCT", "Left"), Code("24028007", "SCT", "Right")
VOLUME = Code("118565006", "SCT", "Volume")
DENSITY = Code("112031", "DCM", "Attenuation Coefficient")
ROWS, COLUMNS = 12, 10
STUDY_UID, SERIES_UID = "2.25.100", "2.25.200"


def assignment(revision: int = 1, replaces: tuple[ObjectReference, ...] = ()) -> Assignment:
    """Give a job with a fixed id, rendered at a fixed time."""
    return Assignment(uuid.UUID(int=7), revision, STUDY_UID, datetime(2026, 1, 2, 23, 30, tzinfo=UTC), replaces)


def findings_of_two_levels() -> tuple[Finding, ...]:
    """Give 'pneumonia' and below it 'bacterial'."""
    normal = ClassProbability("normal", Code("17621005", "SCT", "Normal"), 0.1)
    pneumonia = ClassProbability("pneumonia", Code("233604007", "SCT", "Pneumonia"), 0.9)
    bacterial = ClassProbability("bacterial", Code("53084003", "SCT", "Bacterial pneumonia"), 0.654321)
    viral = ClassProbability("viral", Code("75570004", "SCT", "Viral pneumonia"), 0.345679)
    presence = Code("pneumonia-presence", "99HYBRIDMED", "Presence of pneumonia")
    kind = Code("pneumonia-type", "99HYBRIDMED", "Type of pneumonia")
    return (
        Finding("coarse", "coarse", presence, pneumonia, (normal, pneumonia), site=LUNG),
        Finding("fine", "fine", kind, bacterial, (bacterial, viral), site=LUNG, parent_id="coarse"),
    )


def lungs(left: NDArray[np.bool_], right: NDArray[np.bool_]) -> tuple[Segment, Segment]:
    """Give two segments; the density of the left one could not be measured."""
    organ = Code("123037004", "SCT", "Anatomical structure")
    milliliter, hounsfield = Code("mL", "UCUM", "milliliter"), Code("[hnsf'U]", "UCUM", "Hounsfield unit")
    volume = Measurement(VOLUME, 1234.5, milliliter)
    missing = Measurement(DENSITY, float("nan"), hounsfield)
    present = Measurement(DENSITY, -812.5, hounsfield)
    return (
        Segment("lung-left", 1, "Left lung", organ, LUNG, left, (60.0, 20.0, -30.0), LEFT, (volume, missing)),
        Segment("lung-right", 2, "Right lung", organ, LUNG, right, (70.0, -30.0, 30.0), RIGHT, (volume, present)),
    )


def distinct_masks(planes: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Give two (Z, Y, X) masks without overlap, different in every plane and under every flip."""
    left = np.zeros((planes, ROWS, COLUMNS), dtype=bool)
    right = np.zeros_like(left)
    for z in range(planes):
        left[z, 1 : 3 + z, 1:3] = True
        right[z, 2, 4 : 6 + z] = True
    return left, right


def volume_findings(files: list[Path], order: list[int] | None = None) -> Findings:
    """Give two lungs on the planes of a single-frame series; `order` shuffles the planes."""
    planes = order if order is not None else list(range(len(files)))
    left, right = distinct_masks(len(files))
    frames = tuple(SourceFrame(instance_uid(k)) for k in planes)
    return Findings(ALGORITHM, SERIES_UID, frames, segments=lungs(left[planes], right[planes]))


def xray_findings(heat_maps: bool = True) -> Findings:
    """Give two levels, two lungs and two heat maps on one projection image."""
    frame = SourceFrame(instance_uid(0))
    weight = np.linspace(0, 1, ROWS * COLUMNS, dtype=np.float32).reshape(ROWS, COLUMNS)
    maps = (HeatMap("pneumonia", "coarse", frame, weight), HeatMap("bacterial", "fine", frame, weight))
    segments = lungs(*distinct_masks(1))
    return Findings(ALGORITHM, SERIES_UID, (frame,), findings_of_two_levels(), segments, maps if heat_maps else ())


def instance_uid(k: int) -> str:
    """Give the SOP Instance UID of plane k."""
    return f"2.25.{300 + k}"


def write_series(folder: Path, planes: int, change: Callable[[Dataset], None] | None = None) -> list[Path]:
    """Write a CT series of 2.5 mm slices; `change` spoils each header."""
    files = []
    for k in range(planes):
        header = _image(CTImageStorage, k, "CT")
        _place(header, k)
        files.append(_write(folder, header, change))
    return files


def write_xray(folder: Path, change: Callable[[Dataset], None] | None = None) -> list[Path]:
    """Write one chest X-ray without geometry."""
    header = _image(DigitalXRayImageStorageForPresentation, 0, "DX")
    header.ImagerPixelSpacing = [0.2, 0.2]
    header.PatientOrientation = ["L", "F"]
    header.BodyPartExamined = "CHEST"
    return [_write(folder, header, change)]


def write_multi_frame(folder: Path, planes: int) -> list[Path]:
    """Write an Enhanced CT whose frames lie in descending order."""
    header = _image(EnhancedCTImageStorage, 0, "CT")
    header.NumberOfFrames = planes
    header.PixelData = header.PixelData * planes
    header.FrameOfReferenceUID = "2.25.400"
    shared, measures, orientation = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [0.7, 0.7], 2.5
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    header.SharedFunctionalGroupsSequence = [shared]
    groups = []
    for k in range(planes):
        group, position = Dataset(), Dataset()
        position.ImagePositionPatient = [-3, 4, 50 - 2.5 * k]
        group.PlanePositionSequence = [position]
        groups.append(group)
    header.PerFrameFunctionalGroupsSequence = groups
    return [_write(folder, header, None)]


def _image(sop_class: str, k: int, modality: str) -> Dataset:
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.SOPClassUID, header.SOPInstanceUID = sop_class, instance_uid(k)
    header.StudyInstanceUID, header.SeriesInstanceUID = STUDY_UID, SERIES_UID
    header.Modality = modality
    header.PatientName, header.PatientID, header.PatientSex = "Test^Case", "T-1", "O"
    header.PatientBirthDate = "19500101"
    header.AccessionNumber, header.StudyID = "A-1", "1"
    header.StudyDate, header.StudyTime = "20260101", "101112"
    header.SeriesDate, header.SeriesTime = "20260101", "101500"
    header.Rows, header.Columns = ROWS, COLUMNS
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 16, 12, 11, 0
    header.PixelData = np.arange(ROWS * COLUMNS, dtype="<u2").tobytes()
    return header


def _place(header: Dataset, k: int) -> None:
    header.FrameOfReferenceUID = "2.25.400"
    header.ImagePositionPatient = [-3, 4, 10 + 2.5 * k]
    header.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    header.PixelSpacing = [0.7, 0.7]
    header.SliceThickness = 2.5
    header.RescaleSlope, header.RescaleIntercept = 1, -1024


def _write(folder: Path, header: Dataset, change: Callable[[Dataset], None] | None) -> Path:
    if change is not None:
        change(header)
    path = folder / f"{header.SOPInstanceUID}.dcm"
    header.save_as(path, enforce_file_format=True)
    return path
