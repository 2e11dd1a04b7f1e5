"""One image plane: where it lies and how its stored values become modality values.

Single-frame instances and the frames of Enhanced multi-frame ones (PS3.3 C.7.6.16) come out alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from pydicom import uid
from pydicom.dataset import Dataset

from inference.errors import NotEvaluableError
from inference.findings import SourceFrame
from inference.instance import item, number, numbers, text, whole

Vector: TypeAlias = tuple[float, float, float]

PROJECTION_CLASSES = frozenset(
    {
        uid.ComputedRadiographyImageStorage,
        uid.DigitalXRayImageStorageForPresentation,
        uid.DigitalXRayImageStorageForProcessing,
        uid.DigitalMammographyXRayImageStorageForPresentation,
        uid.DigitalMammographyXRayImageStorageForProcessing,
        uid.DigitalIntraOralXRayImageStorageForPresentation,
        uid.DigitalIntraOralXRayImageStorageForProcessing,
        uid.XRayAngiographicImageStorage,
        uid.XRayRadiofluoroscopicImageStorage,
    }
)
CT_CLASSES = frozenset({uid.CTImageStorage, uid.EnhancedCTImageStorage, uid.LegacyConvertedEnhancedCTImageStorage})
ENHANCED_CLASSES = frozenset(
    {
        uid.EnhancedCTImageStorage,
        uid.EnhancedMRImageStorage,
        uid.EnhancedPETImageStorage,
        uid.LegacyConvertedEnhancedCTImageStorage,
        uid.LegacyConvertedEnhancedMRImageStorage,
        uid.LegacyConvertedEnhancedPETImageStorage,
    }
)
CLASSIC_CLASSES = frozenset({uid.CTImageStorage, uid.MRImageStorage, uid.PositronEmissionTomographyImageStorage})
SECONDARY_CAPTURE_CLASSES = frozenset(
    {
        uid.SecondaryCaptureImageStorage,
        uid.MultiFrameSingleBitSecondaryCaptureImageStorage,
        uid.MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
        uid.MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
        uid.MultiFrameTrueColorSecondaryCaptureImageStorage,
    }
)
LOCALIZER_TYPES = frozenset({"LOCALIZER", "SCOUT", "SCANO", "TOPOGRAM"})
MAX_SPACING_MM = 1000.0
MAX_COORDINATE_MM = 1e6

SPLIT_SOURCES: tuple[tuple[str, str, str], ...] = (
    ("AcquisitionNumber", "FrameContentSequence", "FrameAcquisitionNumber"),
    ("TemporalPositionIdentifier", "FrameContentSequence", "TemporalPositionIndex"),
    ("StackID", "FrameContentSequence", "StackID"),
    ("EchoTime", "MREchoSequence", "EffectiveEchoTime"),
    ("EchoNumbers", "MREchoSequence", "EchoNumbers"),
    ("InversionTime", "MRModifierSequence", "InversionTimes"),
    ("DiffusionBValue", "MRDiffusionSequence", "DiffusionBValue"),
    ("DiffusionGradientOrientation", "MRDiffusionSequence", "DiffusionGradientOrientation"),
    ("TriggerTime", "CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime"),
    ("FrameReferenceTime", "FrameContentSequence", "FrameReferenceDateTime"),
    ("ConvolutionKernel", "CTReconstructionSequence", "ConvolutionKernel"),
    ("ImageType", "", "FrameType"),
)
"""What may tell two planes at one position apart: classic keyword; functional group and its keyword."""


@dataclass(frozen=True, slots=True)
class Plane:
    """One frame of one instance, as its header describes it."""

    path: Path
    frame: SourceFrame
    index: int
    """Frame within the instance, from 0."""
    rows: int
    columns: int
    slope: float
    intercept: float
    position: Vector | None = None
    """Centre of the first voxel, mm LPS (PS3.3 C.7.6.2.1.1)."""
    orientation: tuple[float, ...] | None = None
    """Direction of increasing column index, then of increasing row index: six cosines, LPS."""
    spacing: tuple[float, float] | None = None
    """Between rows, between columns; mm."""
    step_mm: float | None = None
    """Declared distance to the next plane: SpacingBetweenSlices, else SliceThickness. Used for a lone plane only."""
    frame_of_reference: str = ""
    split_values: tuple[str, ...] = ()
    """Values of `SPLIT_SOURCES`, '' where absent."""


def check_kind(ds: Dataset) -> None:
    """Refuse what is no diagnostic grey-scale image: captures, localizers, mosaics, colour, other SOP classes.

    Judged by SOP class, not by the DERIVED or SECONDARY of ImageType: reformats and crops carry those too.
    """
    sop_class = text(ds, "SOPClassUID")
    if sop_class in SECONDARY_CAPTURE_CLASSES:
        raise NotEvaluableError("series.secondary-capture", "The image is a secondary capture.")
    if sop_class not in PROJECTION_CLASSES | CLASSIC_CLASSES | ENHANCED_CLASSES:
        raise NotEvaluableError("series.unsupported", "The SOP class is none of CT, MR, PET, CR, DX, MG, XA or RF.")
    frame_type = _frame_type(ds, 0)
    values = {value.strip().upper() for value in [*text(ds, "ImageType").split("\\"), *frame_type.split("\\")]}
    if values & LOCALIZER_TYPES:
        raise NotEvaluableError("series.localizer", "The image is a localizer.")
    if "SCREEN SAVE" in values:
        raise NotEvaluableError("series.secondary-capture", "The image is a screen save.")
    if "MOSAIC" in values:
        raise NotEvaluableError("series.mosaic", "The image holds several slices as tiles of one plane (mosaic).")
    if text(ds, "PixelPresentation") in {"COLOR", "MIXED", "TRUE_COLOR"}:
        raise NotEvaluableError("pixels.colour", "The image's values are meant to be shown in colour.")


def projection_plane(ds: Dataset, path: Path) -> Plane:
    """Describe a single-frame projection image; it has no place in the patient."""
    if frame_count(ds) != 1:
        raise NotEvaluableError("series.cine", "A projection image with several frames (cine) is not read.")
    rows, columns = matrix(ds)
    slope, intercept = _rescale(ds, ds)
    spacing = _projection_spacing(ds)
    return Plane(path, _source(ds, None), 0, rows, columns, slope, intercept, spacing=spacing)


def cross_sectional_planes(ds: Dataset, path: Path) -> Iterator[Plane]:
    """Describe every frame of a CT, MR or PET instance, classic or Enhanced."""
    if text(ds, "SOPClassUID") in ENHANCED_CLASSES:
        yield from _enhanced_planes(ds, path)
        return
    if frame_count(ds) != 1:
        raise NotEvaluableError("geometry.no-position", "Several frames in an instance that places only one.")
    sources = {"position": ds, "orientation": ds, "measures": ds, "rescale": ds}
    splits = tuple(text(ds, keyword) for keyword, _, _ in SPLIT_SOURCES)
    yield _placed_plane(ds, path, 0, sources, splits)


def matrix(ds: Dataset) -> tuple[int, int]:
    """Return rows and columns, both at least 1."""
    rows, columns = whole(ds, "Rows", "pixels.header"), whole(ds, "Columns", "pixels.header")
    if rows is None or columns is None or rows < 1 or columns < 1:
        raise NotEvaluableError("pixels.header", "Rows or Columns is missing or zero.")
    return rows, columns


def frame_count(ds: Dataset) -> int:
    """Return NumberOfFrames, 1 when absent."""
    count = whole(ds, "NumberOfFrames", "pixels.header")
    if count is None:
        return 1
    if count < 1:
        raise NotEvaluableError("pixels.header", "NumberOfFrames is below 1.")
    return count


def _enhanced_planes(ds: Dataset, path: Path) -> Iterator[Plane]:
    count = frame_count(ds)
    described = len(ds.get("PerFrameFunctionalGroupsSequence") or ())
    if described != count:
        reason = f"{count} frames are declared, {described} of them are described by functional groups."
        raise NotEvaluableError("geometry.no-position", reason)
    for index in range(count):
        sources = {
            "position": group(ds, index, "PlanePositionSequence"),
            "orientation": group(ds, index, "PlaneOrientationSequence"),
            "measures": group(ds, index, "PixelMeasuresSequence"),
            "rescale": group(ds, index, "PixelValueTransformationSequence"),
        }
        splits = tuple(_frame_value(ds, index, functional, keyword) for _, functional, keyword in SPLIT_SOURCES)
        yield _placed_plane(ds, path, index, sources, splits)


def group(ds: Dataset, index: int, keyword: str) -> Dataset:
    """Return a functional group's item for a frame: its own, else the shared one, else an empty data set."""
    own = item(ds, "PerFrameFunctionalGroupsSequence", index)
    found = item(own, keyword) if own is not None else None
    if found is None:
        shared = item(ds, "SharedFunctionalGroupsSequence")
        found = item(shared, keyword) if shared is not None else None
    return found if found is not None else Dataset()


def _placed_plane(
    ds: Dataset, path: Path, index: int, sources: dict[str, Dataset], split_values: tuple[str, ...]
) -> Plane:
    position = numbers(sources["position"], "ImagePositionPatient", 3, "geometry.no-position")
    orientation = numbers(sources["orientation"], "ImageOrientationPatient", 6, "geometry.orientation")
    spacing = _spacing(sources["measures"], "PixelSpacing")
    if position is None or orientation is None or spacing is None:
        reason = "Position, orientation or pixel spacing of a plane in the patient is missing."
        raise NotEvaluableError("geometry.no-position", reason)
    if max(abs(v) for v in position) > MAX_COORDINATE_MM:
        raise NotEvaluableError("geometry.no-position", "A plane's position lies outside any scanner.")
    rows, columns = matrix(ds)
    slope, intercept = _rescale(ds, sources["rescale"])
    is_enhanced = text(ds, "SOPClassUID") in ENHANCED_CLASSES
    return Plane(
        path=path,
        frame=_source(ds, index + 1 if is_enhanced else None),
        index=index,
        rows=rows,
        columns=columns,
        slope=slope,
        intercept=intercept,
        position=(position[0], position[1], position[2]),
        orientation=orientation,
        spacing=spacing,
        step_mm=_declared_step(sources["measures"]),
        frame_of_reference=text(ds, "FrameOfReferenceUID"),
        split_values=split_values,
    )


def _source(ds: Dataset, frame_number: int | None) -> SourceFrame:
    sop_instance_uid = text(ds, "SOPInstanceUID")
    if not sop_instance_uid:
        raise NotEvaluableError("series.unreadable", "An instance has no SOP Instance UID.")
    return SourceFrame(sop_instance_uid, frame_number)


def _rescale(ds: Dataset, source: Dataset) -> tuple[float, float]:
    """Return slope and intercept (PS3.3 C.11.1); CT must declare them, or its values are no Hounsfield units."""
    slope, intercept = (number(source, keyword, "pixels.rescale") for keyword in ("RescaleSlope", "RescaleIntercept"))
    if slope is None or intercept is None:
        if text(ds, "SOPClassUID") in CT_CLASSES:
            raise NotEvaluableError("pixels.rescale", "The CT declares no rescale slope and intercept.")
        slope, intercept = 1.0 if slope is None else slope, intercept or 0.0
    if slope == 0:
        raise NotEvaluableError("pixels.rescale", "The rescale slope is zero.")
    return slope, intercept


def _spacing(source: Dataset, keyword: str) -> tuple[float, float] | None:
    values = numbers(source, keyword, 2, "geometry.spacing")
    if values is None:
        return None
    if not all(0 < v <= MAX_SPACING_MM for v in values):
        raise NotEvaluableError("geometry.spacing", f"{keyword} is not a distance between pixels.")
    return values[0], values[1]


def _projection_spacing(ds: Dataset) -> tuple[float, float] | None:
    """Return the calibrated spacing, else that at the detector; old CR writes zeros where neither is known."""
    for keyword in ("PixelSpacing", "ImagerPixelSpacing"):
        if text(ds, keyword) and numbers(ds, keyword, 2, "geometry.spacing") != (0.0, 0.0):
            return _spacing(ds, keyword)
    return None


def _declared_step(source: Dataset) -> float | None:
    for keyword in ("SpacingBetweenSlices", "SliceThickness"):
        value = number(source, keyword, "geometry.spacing")
        if value is not None and 0 < value <= MAX_SPACING_MM:
            return value
    return None


def _frame_value(ds: Dataset, index: int, functional: str, keyword: str) -> str:
    if keyword == "FrameType":
        return _frame_type(ds, index)
    found = group(ds, index, functional)
    if keyword == "DiffusionGradientOrientation":
        found = item(found, "DiffusionGradientDirectionSequence") or Dataset()
    return text(found, keyword)


def _frame_type(ds: Dataset, index: int) -> str:
    for keyword in ("CTImageFrameTypeSequence", "MRImageFrameTypeSequence", "PETFrameTypeSequence"):
        found = text(group(ds, index, keyword), "FrameType")
        if found:
            return found
    return ""
