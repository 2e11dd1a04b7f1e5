"""Small series made by the tests: every attribute that matters to geometry or pixels can be set or spoilt."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, generate_uid

SERIES_UID = "2.25.1001"
AXIAL = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
ROWS, COLUMNS = 6, 4

Change = Callable[[Dataset, int], None]


def stored_values(z: int, dtype: str = "uint16") -> NDArray[Any]:
    """Give plane `z` values that no other plane and no other pixel of its plane has."""
    return (np.arange(ROWS * COLUMNS).reshape(ROWS, COLUMNS) + 100 * z).astype(dtype)


def image(
    sop_class: str = uid.CTImageStorage, pixels: NDArray[Any] | None = None, bits_stored: int | None = None
) -> Dataset:
    """Make a grey-scale instance without geometry; CT declares slope 1 and intercept -1024."""
    array = stored_values(0) if pixels is None else pixels
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    ds.SOPClassUID = sop_class
    ds.SOPInstanceUID = generate_uid()
    ds.StudyInstanceUID = "2.25.1000"
    ds.SeriesInstanceUID = SERIES_UID
    ds.PatientName = "Secret^Name"
    ds.PatientID = "SECRET-ID"
    ds.Modality = {uid.CTImageStorage: "CT", uid.MRImageStorage: "MR"}.get(UID(sop_class), "DX")
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.Rows, ds.Columns = array.shape[-2:]
    ds.BitsAllocated = 8 * array.dtype.itemsize
    ds.BitsStored = ds.BitsAllocated if bits_stored is None else bits_stored
    ds.HighBit = ds.BitsStored - 1
    ds.PixelRepresentation = int(array.dtype.kind == "i")
    ds.PixelData = array.astype(array.dtype.newbyteorder("<")).tobytes()
    ds["PixelData"].VR = "OW" if ds.BitsAllocated > 8 else "OB"
    if UID(sop_class) == uid.CTImageStorage:
        ds.RescaleSlope, ds.RescaleIntercept = 1, -1024
    return ds


def place(ds: Dataset, position: list[float], orientation: list[float] | None = None) -> Dataset:
    """Place a plane in the patient, pixels 0.5 mm (rows) by 0.25 mm (columns)."""
    ds.ImagePositionPatient = [f"{v:.10g}" for v in position]
    ds.ImageOrientationPatient = [f"{v:.10g}" for v in (orientation or AXIAL)]
    ds.PixelSpacing = [0.5, 0.25]
    ds.SliceThickness = 2
    ds.FrameOfReferenceUID = "2.25.1002"
    return ds


def write(ds: Dataset, path: Path) -> Path:
    """Write a Part 10 file."""
    ds.save_as(path, enforce_file_format=True)
    return path


def series(folder: Path, heights_mm: list[float], change: Change | None = None, **options: Any) -> list[Path]:
    """Write axial planes at the given heights, in that order; `change` may spoil plane `n`."""
    paths = []
    for n, height in enumerate(heights_mm):
        ds = place(image(pixels=stored_values(n), **options), [10.0, 20.0, height])
        ds.InstanceNumber = len(heights_mm) - n
        if change:
            change(ds, n)
        paths.append(write(ds, folder / f"{n:03}.dcm"))
    return paths


def enhanced(heights_mm: list[float], sop_class: str = uid.EnhancedCTImageStorage) -> Dataset:
    """Make an Enhanced multi-frame instance with a slope and intercept per frame and shared orientation."""
    ds = image(sop_class, np.stack([stored_values(n) for n in range(len(heights_mm))]))
    ds.Modality = "CT"
    ds.NumberOfFrames = len(heights_mm)
    ds.SharedFunctionalGroupsSequence = Sequence([_shared_groups()])
    ds.PerFrameFunctionalGroupsSequence = Sequence([_frame_groups(n, h) for n, h in enumerate(heights_mm)])
    return ds


def _shared_groups() -> Dataset:
    orientation, measures, shared = Dataset(), Dataset(), Dataset()
    orientation.ImageOrientationPatient = AXIAL
    measures.PixelSpacing = [0.5, 0.25]
    measures.SliceThickness = 2
    shared.PlaneOrientationSequence = Sequence([orientation])
    shared.PixelMeasuresSequence = Sequence([measures])
    return shared


def _frame_groups(n: int, height_mm: float) -> Dataset:
    position, transformation, content, groups = Dataset(), Dataset(), Dataset(), Dataset()
    position.ImagePositionPatient = [10, 20, height_mm]
    transformation.RescaleSlope = n + 1
    transformation.RescaleIntercept = -n
    content.StackID = "1"
    groups.PlanePositionSequence = Sequence([position])
    groups.PixelValueTransformationSequence = Sequence([transformation])
    groups.FrameContentSequence = Sequence([content])
    return groups
