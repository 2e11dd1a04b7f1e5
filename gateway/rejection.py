"""Rejection notes that arrive: Key Object Selections titled with a reason for rejection (IHE RAD TF-2 4.66, IOCM)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import structlog
from pydicom.dataset import Dataset

from gateway.decoding import MALFORMED, parsing, read_file
from gateway.errors import CannotUnderstandError
from gateway.header import valid_uid
from gateway.store.rejections import Rejected

log = structlog.get_logger()

KEY_OBJECT_SELECTION = "1.2.840.10008.5.1.4.1.1.88.59"
QUALITY = "113001"
CODES = frozenset({QUALITY, "113037", "113038", "113039"})
"""DCM codes of CID 7011 Rejection Codes."""
_NOTE_LIMIT = 1 << 26
"""Bytes of the largest note that is read."""


def read_note(path: Path) -> tuple[str, Sequence[Rejected]] | None:
    """Return code and instances of a rejection note; None where the file is another Key Object Selection, or broken.

    Only instances of the note's own study count: what a note says of other studies is not for it to decide.
    """
    try:
        if path.stat().st_size > _NOTE_LIMIT:
            return None
        with parsing():
            dataset = read_file(path, most_inflated=_NOTE_LIMIT, stop_before_pixels=True)
            code = _code(dataset)
            return None if code is None else (code, list(_rejected(dataset)))
    except MALFORMED as error:
        log.warning("note.unreadable", file=path.name, error=type(error).__name__)
        return None


def _code(dataset: Dataset) -> str | None:
    title = dataset.ConceptNameCodeSequence[0]
    value = str(title.get("CodeValue", ""))
    return value if title.get("CodingSchemeDesignator") == "DCM" and value in CODES else None


def _rejected(dataset: Dataset) -> Iterator[Rejected]:
    """Yield what the content tree names, with the series that the evidence gives for it."""
    named = {
        str(reference.ReferencedSOPInstanceUID)
        for item in dataset.get("ContentSequence", ())
        for reference in item.get("ReferencedSOPSequence", ())
    }
    for of_study in dataset.get("CurrentRequestedProcedureEvidenceSequence", ()):
        if of_study.StudyInstanceUID != dataset.StudyInstanceUID:
            continue
        for of_series in of_study.ReferencedSeriesSequence:
            for reference in of_series.ReferencedSOPSequence:
                uid = str(reference.ReferencedSOPInstanceUID)
                if uid in named and uid != dataset.SOPInstanceUID:
                    yield _checked(str(of_study.StudyInstanceUID), str(of_series.SeriesInstanceUID), uid)


def _checked(study_uid: str, series_uid: str, uid: str) -> Rejected:
    try:
        return Rejected(
            valid_uid(study_uid, "Study Instance UID"),
            valid_uid(series_uid, "Series Instance UID"),
            valid_uid(uid, "SOP Instance UID"),
        )
    except CannotUnderstandError as error:
        raise ValueError(error.comment) from error
