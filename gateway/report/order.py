"""What images say of the order that they were made for, and of where they were made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset

from gateway.decoding import MALFORMED
from inference.findings import Code

_TAGS = [
    "SpecificCharacterSet",
    "InstitutionName",
    "InstitutionAddress",
    "ReasonForTheRequestedProcedure",
    "ProcedureCodeSequence",
    "RequestAttributesSequence",
    "PlacerOrderNumberImagingServiceRequest",
    "FillerOrderNumberImagingServiceRequest",
    "RequestedProcedureID",
    "RequestedProcedureDescription",
    "RequestedProcedureCodeSequence",
]
_UNREADABLE = (OSError, *MALFORMED)
_LONGEST = 255


@dataclass(frozen=True, slots=True)
class ImagingOrder:
    """Order and institution; a text is empty where the images do not say it."""

    institution: str = ""
    """Institution Name (0008,0080)."""
    institution_address: str = ""
    procedure_id: str = ""
    """Requested Procedure ID (0040,1001)."""
    procedure: str = ""
    """Requested Procedure Description (0032,1060)."""
    procedure_code: Code | None = None
    """Requested Procedure Code Sequence (0032,1064), else Procedure Code Sequence (0008,1032): the first item."""
    placer_number: str = ""
    """Placer Order Number / Imaging Service Request (0040,2016)."""
    filler_number: str = ""
    reason: str = ""
    """Reason for the Requested Procedure (0040,1002)."""


NO_ORDER = ImagingOrder()


def read_order(sources: Sequence[Path]) -> ImagingOrder:
    """Return what the first of these files says; nothing where it cannot be read."""
    for path in sources[:1]:
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_TAGS)
            return _order(header)
        except _UNREADABLE:
            continue
    return NO_ORDER


def _order(header: Dataset) -> ImagingOrder:
    requests = header.get("RequestAttributesSequence") or []
    # Request Attributes (0040,0275) stand in a sequence of the series; older images have them at the top.
    holders = [*requests[:1], header]
    return ImagingOrder(
        institution=_text([header], "InstitutionName"),
        institution_address=_text([header], "InstitutionAddress"),
        procedure_id=_text(holders, "RequestedProcedureID"),
        procedure=_text(holders, "RequestedProcedureDescription"),
        procedure_code=_code(holders, "RequestedProcedureCodeSequence") or _code([header], "ProcedureCodeSequence"),
        placer_number=_text([header], "PlacerOrderNumberImagingServiceRequest"),
        filler_number=_text([header], "FillerOrderNumberImagingServiceRequest"),
        reason=_text(holders, "ReasonForTheRequestedProcedure"),
    )


def _text(holders: Sequence[Dataset], keyword: str) -> str:
    texts = (str(each.get(keyword) or "").strip() for each in holders)
    return next((text[:_LONGEST] for text in texts if text), "")


def _code(holders: Sequence[Dataset], keyword: str) -> Code | None:
    for holder in holders:
        for item in (holder.get(keyword) or [])[:1]:
            value, scheme, meaning = (
                _text([item], name) for name in ("CodeValue", "CodingSchemeDesignator", "CodeMeaning")
            )
            if value and scheme:
                return Code(value, scheme, meaning or value)
    return None
