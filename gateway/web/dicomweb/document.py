"""A structured report's content tree as HTML (PS3.3 C.17.3); every value is escaped."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.valuerep import PersonName

from gateway.decoding import MALFORMED

_DEPTH_LIMIT = 64
_ITEM_LIMIT = 20_000
_VALUES = {
    "TEXT": "TextValue",
    "DATETIME": "DateTime",
    "DATE": "Date",
    "TIME": "Time",
    "PNAME": "PersonName",
    "UIDREF": "UID",
}
_REFERENCES = frozenset({"IMAGE", "COMPOSITE", "WAVEFORM"})
_HEAD = (
    ("Patient", "PatientName"),
    ("Patient ID", "PatientID"),
    ("Birth date", "PatientBirthDate"),
    ("Study date", "StudyDate"),
    ("Accession number", "AccessionNumber"),
    ("Study", "StudyDescription"),
    ("Series", "SeriesDescription"),
    ("Completion", "CompletionFlag"),
    ("Verification", "VerificationFlag"),
)


def document_html(dataset: Dataset) -> bytes:
    """Return a page that shows a report; what cannot be read of it is left out."""
    title = _concept(dataset, "ConceptNameCodeSequence") or "Structured report"
    rows = "".join(
        f"<tr><th>{escape(label)}</th><td>{escape(_text(dataset.get(keyword)))}</td></tr>"
        for label, keyword in _HEAD
        if dataset.get(keyword)
    )
    body = "".join(_Tree().items(dataset, 0))
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<title>{escape(title)}</title><link rel="stylesheet" href="/assets/style.css"></head>'
        f'<body class="report"><h1>{escape(title)}</h1><table>{rows}</table>{body}</body></html>\n'
    ).encode("utf-8", "replace")


class _Tree:
    """Walks the items, at most `_ITEM_LIMIT`."""

    def __init__(self) -> None:
        self._left = _ITEM_LIMIT

    def items(self, holder: Dataset, depth: int) -> Iterator[str]:
        children = holder.get("ContentSequence") or ()
        if not children:
            return
        if depth >= _DEPTH_LIMIT:
            yield "<p>…</p>"
            return
        yield "<ul>"
        for item in children:
            self._left -= 1
            if self._left < 0:
                yield "<li>…</li>"
                break
            yield f"<li>{_item(item)}"
            yield from self.items(item, depth + 1)
            yield "</li>"
        yield "</ul>"


def _item(item: Dataset) -> str:
    try:
        name = _concept(item, "ConceptNameCodeSequence")
        value = _value(item)
    except MALFORMED:
        return "<em>unreadable</em>"
    label = f"<strong>{escape(name)}</strong>" if name else ""
    return f"{label}{': ' if label and value else ''}{escape(value)}"


def _value(item: Dataset) -> str:
    kind = str(item.get("ValueType", ""))
    if kind in _VALUES:
        return _text(item.get(_VALUES[kind]))
    if kind == "CODE":
        return _concept(item, "ConceptCodeSequence")
    if kind == "NUM":
        return _measured(item)
    if kind in _REFERENCES:
        references = item.get("ReferencedSOPSequence") or ()
        return ", ".join(f"{kind.lower()} {_text(each.get('ReferencedSOPInstanceUID'))}" for each in references)
    if kind in {"SCOORD", "SCOORD3D", "TCOORD"}:
        return f"{_text(item.get('GraphicType') or item.get('TemporalRangeType'))} coordinates"
    return ""


def _measured(item: Dataset) -> str:
    values = item.get("MeasuredValueSequence") or ()
    if not values:
        return _concept(item, "NumericValueQualifierCodeSequence") or "no value"
    unit = _concept(values[0], "MeasurementUnitsCodeSequence", "CodeValue")
    return f"{_text(values[0].get('NumericValue'))} {'' if unit == '1' else unit}".strip()


def _concept(holder: Dataset, keyword: str, part: str = "CodeMeaning") -> str:
    codes = holder.get(keyword) or ()
    return _text(codes[0].get(part) or codes[0].get("CodeValue")) if codes else ""


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, MultiValue | list):
        return ", ".join(map(_text, value))
    if isinstance(value, PersonName):
        return str(value).replace("^", " ").strip()
    return str(value)
