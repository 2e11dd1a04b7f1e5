"""A data set in the DICOM JSON model (PS3.18 annex F), read from its file without its pixels.

What a value should not be (a number with letters, a date of five digits) is passed on where JSON can say it, and left
out where it cannot: an image whose header has a flaw is shown all the same.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pydicom
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.filewriter import correct_ambiguous_vr
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag

from gateway.decoding import MALFORMED
from gateway.elements import DEFLATED
from gateway.quiet import quietly
from gateway.web.dicomweb.pixels import pixel_element

BULK_MARK: Final = "\x01"
"""Stands in a BulkDataURI for the address of the instance."""
_BULK_BYTES = 1024
"""Of a binary value, above which it is only referred to."""
_LONG_TEXT = 1 << 16
"""Characters of a text, above which it is only referred to."""
_DEPTH_LIMIT = 16
_BINARY = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN", "OB or OW"})
_TEXT = frozenset({"LT", "ST", "UT", "UC", "UR"})
_WHOLE = frozenset({"IS", "SL", "SS", "SV", "UL", "US", "UV"})
_REAL = frozenset({"DS", "FD", "FL"})
_CHARACTER_SET, _AVAILABLE_SYNTAX = 0x00080005, "00083002"
_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")
_PIXELS = {"PixelData": "7FE00010", "FloatPixelData": "7FE00008", "DoubleFloatPixelData": "7FE00009"}

JsonElement = dict[str, Any]


def read_json(path: Path) -> dict[str, JsonElement]:
    """Return the data set of a Part 10 file; pixel data and long values by reference.

    Raises
    ------
    OSError
        The file cannot be read.
    One of `gateway.decoding.MALFORMED`
        It cannot be parsed.
    """
    with path.open("rb") as stream, quietly():
        dataset = pydicom.dcmread(stream, stop_before_pixels=True)
        syntax = str(dataset.file_meta.TransferSyntaxUID)
        pixels = _deflated_pixels(path) if syntax in DEFLATED else pixel_element(stream, syntax)
        correct_ambiguous_vr(dataset, syntax != "1.2.840.10008.1.2.2")
        model = dataset_json(dataset)
    if _CHARACTER_SET in dataset:
        model["00080005"] = {"vr": "CS", "Value": ["ISO_IR 192"]}
    model[_AVAILABLE_SYNTAX] = {"vr": "UI", "Value": [syntax]}
    if pixels is not None:
        tag = _PIXELS[pixels[0]]
        model[tag] = {"vr": pixels[1], "BulkDataURI": f"{BULK_MARK}/bulkdata/{tag}"}
    return dict(sorted(model.items()))


def _deflated_pixels(path: Path) -> tuple[str, str, int] | None:
    dataset = pydicom.dcmread(path, specific_tags=list(_PIXELS))
    return next(((name, str(dataset[name].VR), 0) for name in _PIXELS if name in dataset), None)


def dataset_json(dataset: Dataset, where: str = "", depth: int = 0) -> dict[str, JsonElement]:
    """Return the elements of a data set, group lengths and file meta information left out.

    Parameters
    ----------
    dataset
        Or an item of a sequence.
    where
        Path of the item, as in the address of its bulk data: 'ggggeeee/1/'.
    depth
        Of the item; what is nested too deeply is left out.
    """
    model: dict[str, JsonElement] = {}
    for tag in sorted(dataset.keys()):
        if tag.element == 0 or tag.group == 0x0002:  # noqa: PLR2004 # file meta information
            continue
        name = f"{tag:08X}"
        try:
            model[name] = _element(dataset, tag, where + name, depth)
        except MALFORMED:
            raw = dataset.get_item(tag)
            model[name] = {"vr": str(getattr(raw, "VR", None) or "UN")[:2]}
    return model


def _element(dataset: Dataset, tag: BaseTag, where: str, depth: int) -> JsonElement:
    raw = dataset.get_item(tag)
    if isinstance(raw, RawDataElement) and raw.length > _BULK_BYTES and str(raw.VR) in _BINARY - {"UN"}:
        return {"vr": str(raw.VR), "BulkDataURI": f"{BULK_MARK}/bulkdata/{where}"}
    element = dataset[tag]
    vr = str(element.VR)
    if vr == "SQ":
        if depth >= _DEPTH_LIMIT:
            return {"vr": vr}
        items = [dataset_json(item, f"{where}/{at}/", depth + 1) for at, item in enumerate(element.value or (), 1)]
        return {"vr": vr, "Value": items} if items else {"vr": vr}
    if vr in _BINARY:
        return _binary(element, "OW" if " " in vr else vr, where)
    vr = vr[:2]  # 'US or SS' that nothing could tell
    values = _values(element)
    if vr in _TEXT and values and len(str(values[0])) > _LONG_TEXT:
        return {"vr": vr, "BulkDataURI": f"{BULK_MARK}/bulkdata/{where}"}
    said = [_value(vr, value) for value in values]
    return {"vr": vr, "Value": said} if any(value is not None for value in said) else {"vr": vr}


def _binary(element: DataElement, vr: str, where: str) -> JsonElement:
    value = element.value
    if not value:
        return {"vr": vr}
    if not isinstance(value, bytes):
        raise TypeError("a binary value is bytes")
    if len(value) > _BULK_BYTES:
        return {"vr": vr, "BulkDataURI": f"{BULK_MARK}/bulkdata/{where}"}
    return {"vr": vr, "InlineBinary": base64.b64encode(value).decode()}


def _values(element: DataElement) -> Sequence[Any]:
    value = element.value
    if value is None or value == "":
        return ()
    return value if isinstance(value, MultiValue | list | tuple) else (value,)


def _value(vr: str, value: Any) -> Any:
    if value is None or value == "":
        return None
    if vr == "PN":
        return person_name(str(value))
    if vr == "AT":
        return f"{int(value):08X}"
    if vr in _WHOLE:
        return int(value)
    if vr in _REAL:
        number = float(value)
        return number if math.isfinite(number) else str(value)
    return str(value)


def person_name(text: str) -> Mapping[str, str] | None:
    """Return the component groups of a person name (PS3.18 F.2.2)."""
    groups: Iterable[tuple[str, str]] = zip(_GROUPS, text.split("="), strict=False)
    return {name: group for name, group in groups if group} or None
