"""The source series: its headers, and one geometry record per evaluated plane.

highdicom checks what it is given and refuses much of what hospitals send. It therefore sees only stand-ins that hold
the geometry; the source's own patient and study attributes are put on afterwards, byte for byte (`modules.py`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import overload

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from gateway.errors import NotFoundError
from inference.findings import SourceFrame

_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPClassUID", "SOPInstanceUID")
_PIXEL_MEASURES = ("PixelSpacing", "SliceThickness", "SpacingBetweenSlices")
_LOSSY = ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod")
_PLACEHOLDERS = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
)


@dataclass(frozen=True, slots=True)
class SourceSeries:
    """What the results refer to."""

    study: Dataset
    """The header whose patient, study and request attributes are copied."""
    images: Mapping[str, Dataset]
    """Headers of the evaluated series by SOP Instance UID; empty when no series is named."""
    paths: Mapping[str, Path]
    """File of each of `images`."""
    shown: dict[SourceFrame, NDArray[np.uint8]] = field(default_factory=dict)
    """Planes as shown on a screen, once somebody looked at them (`picture.grey_plane`)."""

    def header(self, frame: SourceFrame) -> Dataset:
        """Return the header of the instance that holds `frame`.

        Raises
        ------
        NotFoundError
            No given file holds it.
        """
        try:
            return self.images[frame.sop_instance_uid]
        except KeyError:
            raise NotFoundError("a source frame lies in none of the given files") from None


class SourceFiles(Sequence[Path]):
    """Part 10 files whose headers are read once, however many objects refer to them; safe to use from any thread.

    Parameters
    ----------
    paths
        As for `read_source`.
    known
        Gives the header of a file that somebody read before; None where nobody did.
    """

    def __init__(self, paths: Sequence[Path], known: Callable[[Path], Dataset | None] = lambda _path: None) -> None:
        self._paths = tuple(paths)
        self._known = known
        self._series: dict[str, SourceSeries] = {}
        self._lock = threading.Lock()

    @overload
    def __getitem__(self, index: int) -> Path: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Path]: ...

    def __getitem__(self, index: int | slice) -> Path | Sequence[Path]:
        return self._paths[index]

    def __len__(self) -> int:
        return len(self._paths)

    def read(self, series_instance_uid: str) -> SourceSeries:
        """Return the evaluated series as `read_source` does.

        The header that is copied from is read anew each time: its bytes must be those of the file (`modules.py`), and
        whoever looks at an element decodes it.
        """
        with self._lock:
            kept = self._series.get(series_instance_uid)
            if kept is None:
                kept = self._series[series_instance_uid] = _read(self._paths, series_instance_uid, self._header)
        first = next(iter(kept.images))
        study = _header(kept.paths[first])
        return kept if study is None else replace(kept, study=study)

    def _header(self, path: Path) -> Dataset | None:
        known = self._known(path)
        return _header(path) if known is None else _usable(known)


def read_source(sources: Sequence[Path], series_instance_uid: str | None) -> SourceSeries:
    """Read the headers of the evaluated series.

    Parameters
    ----------
    sources
        Part 10 files of the study; other series and files that are no DICOM instance are passed over.
    series_instance_uid
        The evaluated series; None takes the first file for patient and study.

    Raises
    ------
    NotFoundError
        No file belongs to the series, or none is DICOM.
    """
    if isinstance(sources, SourceFiles) and series_instance_uid is not None:
        return sources.read(series_instance_uid)
    return _read(sources, series_instance_uid, _header)


def _read(
    sources: Sequence[Path], series_instance_uid: str | None, read: Callable[[Path], Dataset | None]
) -> SourceSeries:
    images: dict[str, Dataset] = {}
    paths: dict[str, Path] = {}
    for path in sources:
        header = read(path)
        if header is None:
            continue
        if series_instance_uid is None:
            return SourceSeries(header, {}, {})
        if header.get("SeriesInstanceUID") == series_instance_uid:
            images[header.SOPInstanceUID] = header
            paths[header.SOPInstanceUID] = path
    if not images:
        raise NotFoundError("no source file belongs to the evaluated series")
    return SourceSeries(next(iter(images.values())), images, paths)


def blank_header() -> Dataset:
    """Return a data set with the patient and study attributes that highdicom copies, all empty."""
    header = Dataset()
    header.update(_blanks())
    return header


@cache
def _blanks() -> Dataset:
    """Return the empty attributes; made once, for a volume has a stand-in for each plane."""
    blanks = Dataset()
    for keyword in _PLACEHOLDERS:
        setattr(blanks, keyword, None)
    return blanks


def stand_in(header: Dataset, frame: SourceFrame | None = None) -> Dataset:
    """Return a clean data set with the identity and the geometry of one source plane.

    Parameters
    ----------
    header
        Header of the instance.
    frame
        The plane; of a multi-frame instance its functional groups are read (PS3.3 C.7.6.16).
    """
    plane = blank_header()
    for keyword in (*_UIDS, "Modality", "Rows", "Columns", "PatientOrientation", *_LOSSY):
        _copy(header, plane, keyword)
    spatial = _spatial(header, frame)
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", *_PIXEL_MEASURES):
        _copy(spatial, plane, keyword)
    if "ImagePositionPatient" in plane:
        _copy(header, plane, "FrameOfReferenceUID")
    if "PixelSpacing" not in plane and header.get("ImagerPixelSpacing"):
        plane.PixelSpacing = header.ImagerPixelSpacing
    return plane


def _header(path: Path) -> Dataset | None:
    """Return the header of an instance that can be referred to; None for anything else."""
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True)
    except InvalidDicomError:
        return None
    return _usable(header)


def _usable(header: Dataset) -> Dataset | None:
    """Return a header that can be referred to; None for any other."""
    return header if all(header.get(keyword) for keyword in _UIDS) else None


def _copy(source: Dataset, target: Dataset, keyword: str) -> None:
    """Copy one attribute that has a value."""
    if keyword not in source:
        return
    element = source[keyword]
    if element.value in (None, ""):
        return
    if dictionary_VR(element.tag) == element.VR:  # the value was converted and checked as it was read
        target[element.tag] = DataElement(element.tag, element.VR, element.value, already_converted=True)
    else:
        setattr(target, keyword, element.value)


def _spatial(header: Dataset, frame: SourceFrame | None) -> Dataset:
    """Return position, orientation and pixel measures of one plane as a flat data set."""
    if frame is None or frame.frame_number is None or "PerFrameFunctionalGroupsSequence" not in header:
        return header
    flat = Dataset()
    shared = header.get("SharedFunctionalGroupsSequence") or [Dataset()]
    for groups in (shared[0], header.PerFrameFunctionalGroupsSequence[frame.frame_number - 1]):
        for name in ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence"):
            for item in groups.get(name) or ():
                flat.update(item)
    return flat
