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

from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.filewriter import correct_ambiguous_vr
from pydicom.multival import MultiValue

from gateway.decoding import MALFORMED, is_of_disk, parsing, read_file
from gateway.elements import DEFLATED
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
_Context = tuple[str, str, str]
"""Transfer syntax, Specific Character Set, Pixel Representation."""
_PIXEL_REPRESENTATION = 0x00280103
_IMAGE_PIXEL_GROUP = 0x0028
_REMEMBERED_BYTES = 256
_REMEMBERED = 20_000
_CREATORS = 0xFF
"""Last element number of private creators."""


class Remembered:
    """Elements as the JSON model says them, by their encoding: most of a series' elements are alike in all its files.

    For files that are read one after another.
    """

    def __init__(self) -> None:
        self.known: dict[tuple[object, ...], JsonElement] = {}

    def keep(self, key: tuple[object, ...], said: JsonElement) -> None:
        """Remember an element."""
        if len(self.known) >= _REMEMBERED:
            self.known.clear()
        self.known[key] = said


def read_json(path: Path, remembered: Remembered | None = None) -> dict[str, JsonElement]:
    """Return the data set of a Part 10 file; pixel data and long values by reference.

    Parameters
    ----------
    path
        Of the file.
    remembered
        From files of the same series that were read before.

    Raises
    ------
    OSError
        The file cannot be read.
    One of `gateway.decoding.MALFORMED`
        It cannot be parsed.
    """
    with path.open("rb") as stream, parsing():
        dataset = read_file(stream, stop_before_pixels=True)
        syntax = str(dataset.file_meta.TransferSyntaxUID)
        pixels = _deflated_pixels(path) if syntax in DEFLATED else pixel_element(stream, syntax)
        correct_ambiguous_vr(dataset, syntax != "1.2.840.10008.1.2.2")
        model = _Models(remembered or Remembered()).of(dataset, (syntax, "", ""))
    if _CHARACTER_SET in dataset:
        model["00080005"] = {"vr": "CS", "Value": ["ISO_IR 192"]}
    model[_AVAILABLE_SYNTAX] = {"vr": "UI", "Value": [syntax]}
    if pixels is not None:
        tag = _PIXELS[pixels[0]]
        model[tag] = {"vr": pixels[1], "BulkDataURI": f"{BULK_MARK}/bulkdata/{tag}"}
    return dict(sorted(model.items()))


def _deflated_pixels(path: Path) -> tuple[str, str, int] | None:
    dataset = read_file(path, specific_tags=list(_PIXELS))
    return next(((name, str(dataset[name].VR), 0) for name in _PIXELS if name in dataset), None)


class _Models:
    """Data sets, and the items in them, in the JSON model."""

    def __init__(self, remembered: Remembered) -> None:
        self._remembered = remembered

    def of(self, dataset: Dataset, outer: _Context, where: str = "", depth: int = 0) -> dict[str, JsonElement]:
        """Return the elements of a data set, group lengths and file meta information left out.

        Parameters
        ----------
        dataset
            Or an item of a sequence.
        outer
            In which the item stands.
        where
            Path of the item, as in the address of its bulk data: 'ggggeeee/1/'.
        depth
            Of the item; what is nested too deeply is left out.
        """
        context = _context(dataset, outer)
        model: dict[str, JsonElement] = {}
        for raw in list(dataset.elements()):
            number = int(raw.tag)
            if number & 0xFFFF == 0 or number >> 16 == 0x0002:  # noqa: PLR2004 # file meta information
                continue
            name = f"{number:08X}"
            key = (context, depth, number, raw.VR, raw.value) if _stands_alone(raw, number) else None
            if key is not None and (known := self._remembered.known.get(key)) is not None:
                model[name] = known
                continue
            try:
                model[name] = self._element(dataset, raw, context, where + name, depth)
            except (OSError, *MALFORMED) as error:
                if isinstance(error, OSError) and is_of_disk(error):
                    raise
                model[name] = {"vr": str(getattr(raw, "VR", None) or "UN")[:2]}
            if key is not None:
                self._remembered.keep(key, model[name])
        return model

    def _element(
        self, dataset: Dataset, raw: DataElement | RawDataElement, context: _Context, where: str, depth: int
    ) -> JsonElement:
        if isinstance(raw, RawDataElement) and raw.length > _BULK_BYTES and str(raw.VR) in _BINARY - {"UN"}:
            return {"vr": str(raw.VR), "BulkDataURI": f"{BULK_MARK}/bulkdata/{where}"}
        element = dataset[raw.tag]
        vr = str(element.VR)
        if vr == "SQ":
            if depth >= _DEPTH_LIMIT:
                return {"vr": vr}
            items = [self.of(item, context, f"{where}/{at}/", depth + 1) for at, item in enumerate(element.value, 1)]
            return {"vr": vr, "Value": items} if items else {"vr": vr}
        if vr in _BINARY:
            return _binary(element, "OW" if " " in vr else vr, where)
        vr = vr[:2]  # 'US or SS' that nothing could tell
        values = _values(element)
        if vr in _TEXT and values and len(str(values[0])) > _LONG_TEXT:
            return {"vr": vr, "BulkDataURI": f"{BULK_MARK}/bulkdata/{where}"}
        said = [_value(vr, value) for value in values]
        return {"vr": vr, "Value": said} if any(value is not None for value in said) else {"vr": vr}


def _context(dataset: Dataset, outer: _Context) -> _Context:
    """Return what besides its encoding decides what an element means: character set and pixel representation."""
    syntax, character_set, representation = outer
    if _CHARACTER_SET in dataset:
        character_set = str(dataset[_CHARACTER_SET].value)
    if _PIXEL_REPRESENTATION in dataset:
        representation = str(dataset[_PIXEL_REPRESENTATION].value)
    return syntax, character_set, representation


def _stands_alone(raw: DataElement | RawDataElement, number: int) -> bool:
    """Say whether an element's encoding and its context decide alone what it means."""
    if not isinstance(raw, RawDataElement) or raw.value is None or len(raw.value) > _REMEMBERED_BYTES:
        return False
    if number >> 16 & 1:  # a private element: its creator decides where its VR is not said
        return number & 0xFFFF > _CREATORS and raw.VR is not None and raw.VR != "UN"
    return number != _CHARACTER_SET and number >> 16 != _IMAGE_PIXEL_GROUP


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
