"""What all rendered objects share: identity, equipment, dates, source modules, and the final encoding."""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from gateway.report.assignment import Assignment, ObjectReference, derived_uid, zone
from gateway.report.encoding import encode_file
from gateway.report.equipment import contribution
from gateway.report.modules import put_source_modules
from gateway.report.source import SourceSeries
from inference.findings import Algorithm, Code

_IMPLEMENTATION_UID = UID("2.25.233487516301424893301726311984532763945")
_IMPLEMENTATION_NAME = "HYBRIDMED"
_FIRST_SERIES_NUMBER = 90_001
"""Well above what scanners count."""
_TITLE = Code("126000", "DCM", "Imaging Measurement Report")
_KINDS = ("sr-findings", "sr-measurements", "seg")
_SERIES_PER_OUTCOME = 100
_PER_FRAME = 0x52009230
_UNICODE_SETS = frozenset({"ISO_IR 192", "GB18030"})


@dataclass(frozen=True, slots=True)
class RenderOptions:
    """What a destination may want otherwise."""

    sr_title: Code = _TITLE
    """CID 7021 Measurement Report Document Titles."""
    seg_encoding: str = "BINARY"
    """'BINARY' or 'LABELMAP'. Segments that overlap are always written as BINARY."""
    image_library_limit: int = 8
    """Most images in an SR's image library; of more, those with the largest cross-sections are listed."""
    heat_map_px: int = 1024
    """Longest side of a heat map in pixels; smaller images are enlarged to half of it."""


@dataclass(frozen=True, slots=True)
class RenderedObject:
    """One DICOM object, encoded."""

    reference: ObjectReference
    dataset: Dataset
    """Read from `content`, so what it shows is what is stored."""
    content: bytes
    """Part 10."""


@dataclass(frozen=True, slots=True)
class Rendering:
    """One outcome of one job on its way to DICOM."""

    assignment: Assignment
    ordinal: int
    algorithm: Algorithm
    source: SourceSeries
    options: RenderOptions

    def uid(self, role: str) -> str:
        """Return the UID of one role, for example 'tracking/lung-left'."""
        return derived_uid(self.assignment.job_id, self.assignment.revision, outcome_role(role, self.ordinal))

    def reference(self, kind: str, sop_class_uid: str) -> ObjectReference:
        """Return the identity of the object of one kind."""
        return ObjectReference(
            kind=kind,
            study_instance_uid=str(self.source.study.StudyInstanceUID),
            series_instance_uid=self.uid(f"series/{kind}"),
            sop_class_uid=sop_class_uid,
            sop_instance_uid=self.uid(f"instance/{kind}"),
        )

    def series_number(self, kind: str, position: int = 0) -> int:
        """Return the series number of one kind; `position` counts the heat maps."""
        offset = _KINDS.index(kind) if kind in _KINDS else len(_KINDS) + position
        return _FIRST_SERIES_NUMBER + _SERIES_PER_OUTCOME * self.ordinal + offset

    @property
    def rendered_at(self) -> datetime:
        """The time of rendering, in the zone of the study's other times (PS3.3 C.12.1.1.8)."""
        offset = self.source.study.get("TimezoneOffsetFromUTC") or self.assignment.timezone_offset
        return self.assignment.rendered_at.astimezone(zone(offset) or self.assignment.rendered_at.tzinfo)


def outcome_role(role: str, ordinal: int) -> str:
    """Return the role to give to `derived_uid` for the outcome with this ordinal in its job."""
    return f"{ordinal}/{role}" if ordinal else role


def finish(rendering: Rendering, reference: ObjectReference, dataset: Dataset) -> RenderedObject:
    """Put dates, equipment and the source's modules on an object, and encode it."""
    at = rendering.rendered_at
    for keyword in ("InstanceCreation", "Content"):
        setattr(dataset, f"{keyword}Date", at.strftime("%Y%m%d"))
        setattr(dataset, f"{keyword}Time", at.strftime("%H%M%S.%f"))
    dataset.ContributingEquipmentSequence = [contribution(rendering.algorithm, at)]
    put_source_modules(rendering.source.study, dataset)
    if "SeriesDate" not in dataset:
        dataset.SeriesDate, dataset.SeriesTime = dataset.ContentDate, dataset.ContentTime
    if "TimezoneOffsetFromUTC" not in dataset and rendering.assignment.timezone_offset:
        dataset.TimezoneOffsetFromUTC = rendering.assignment.timezone_offset
    _name_private_schemes(dataset)
    content = _encoded(dataset, reference)
    return RenderedObject(reference, pydicom.dcmread(io.BytesIO(content)), content)


def own_text(rendering: Rendering, text: str) -> str:
    """Return our own words in characters that the source's character set holds."""
    declared = rendering.source.study.get("SpecificCharacterSet")
    if isinstance(declared, str) and declared in _UNICODE_SETS:
        return text
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode("ascii")


def _name_private_schemes(dataset: Dataset) -> None:
    """Add the Coding Scheme Identification Sequence (PS3.3 C.12.1.1.2) for coding schemes outside of PS3.16."""
    private = sorted({scheme for scheme in _schemes(dataset) if scheme.startswith("99")})
    items = []
    for scheme in private:
        item = Dataset()
        item.CodingSchemeDesignator = scheme
        item.CodingSchemeResponsibleOrganization = "IHE" if scheme == "99IHE" else "HybridMed Gateway"
        items.append(item)
    if items:
        dataset.CodingSchemeIdentificationSequence = items


def _schemes(dataset: Dataset) -> Iterator[str]:
    """Yield the coding schemes in use; those of single frames are DICOM's own."""
    for tag in list(dataset.keys()):
        raw = dataset.get_item(tag)
        if tag == _PER_FRAME or raw is None or raw.is_raw:
            continue
        element = dataset[tag]
        if element.VR == "SQ":
            for item in element.value:
                yield from _schemes(item)
        elif element.keyword == "CodingSchemeDesignator" and element.value:
            yield str(element.value)


def _encoded(dataset: Dataset, reference: ObjectReference) -> bytes:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(reference.sop_class_uid)
    meta.MediaStorageSOPInstanceUID = UID(reference.sop_instance_uid)
    meta.TransferSyntaxUID = dataset.file_meta.get("TransferSyntaxUID", ExplicitVRLittleEndian)
    meta.ImplementationClassUID = _IMPLEMENTATION_UID
    meta.ImplementationVersionName = _IMPLEMENTATION_NAME
    dataset.file_meta = meta
    return encode_file(dataset)
