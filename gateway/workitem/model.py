"""DICOM JSON model (PS3.18 annex F) to and from data sets, within bounds: what is read here comes from strangers.

What is kept and told is the JSON model; a data set is its spelling for DIMSE. VRs are those of the dictionary: clients
err in them (the standard's own example of an event does), and private attributes mean nothing to us.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from pydicom.config import IGNORE
from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence as DicomSequence

from gateway.workitem.refusal import Refusal, WorkitemError
from gateway.workitem.state import Content

_TAG = re.compile(r"[0-9A-Fa-f]{8}")
_DEPTH = 8
_ELEMENTS = 20_000
_VALUE_LENGTH = 10_240  # of LT (PS3.5 table 6.2-1)
_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")
_WHOLE: Mapping[str, tuple[int, int]] = {
    **{vr: (0, (1 << bits) - 1) for vr, bits in (("US", 16), ("UL", 32), ("UV", 64))},
    **{vr: (-(1 << bits - 1), (1 << bits - 1) - 1) for vr, bits in (("SS", 16), ("SL", 32), ("SV", 64))},
}
"""VR -> least and greatest value."""
_REAL: Mapping[str, float] = {"FL": (2 - 2**-23) * 2.0**127, "FD": sys.float_info.max}
"""VR -> greatest magnitude."""
_NUMBERS = _WHOLE.keys() | _REAL.keys()
_TEXTS = frozenset(
    {"AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT"}
)
_DEFAULT_REPERTOIRE = frozenset({"AE", "AS", "CS", "DA", "DS", "DT", "IS", "TM", "UI", "UR"})
"""Texts that no Specific Character Set extends (PS3.5 6.1.2.3)."""
_DECIMAL = {
    "DS": re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,2})?", re.ASCII),
    "IS": re.compile(r"[+-]?\d{1,12}", re.ASCII),
}


def tag_of(keyword: str) -> str:
    """Return the tag of a keyword as the JSON model writes it."""
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise ValueError(f"{keyword} is no DICOM keyword")
    return f"{tag:08X}"


def element(keyword: str, *values: Any) -> Content:
    """Return one attribute; empty values are left out, a sequence's values are its items."""
    vr = _vr(int(tag_of(keyword), 16))
    given = [_json_value(vr, value) for value in values if value is not None and value != ""]
    return {tag_of(keyword): {"vr": vr, "Value": given} if given else {"vr": vr}}


def values_of(content: Content, keyword: str) -> list[Any]:
    """Return the values of an attribute, [] where it is empty or absent; a person name as one text."""
    found = content.get(tag_of(keyword))
    if not isinstance(found, Mapping):
        return []
    values = found.get("Value", [])
    return [_name(value) if isinstance(value, Mapping) and found.get("vr") == "PN" else value for value in values]


def text_of(content: Content, keyword: str) -> str:
    """Return the first value of an attribute as text, '' where it is empty or absent."""
    values = values_of(content, keyword)
    return str(values[0]).strip() if values else ""


def items_of(content: Content, keyword: str) -> list[Content]:
    """Return the items of a sequence."""
    return [item for item in values_of(content, keyword) if isinstance(item, Mapping)]


def read_content(given: object) -> Content:
    """Return what a client wrote in the JSON model, checked; private and unknown attributes are left out.

    Raises
    ------
    WorkitemError
        It is no JSON model, or larger than one can be.
    """
    return _Reader().content(given, 0)


def content_of(dataset: Dataset) -> Content:
    """Return a data set in the JSON model, under the same checks as `read_content`."""
    try:
        return read_content(_spelled(dataset, 0))
    except (AttributeError, LookupError, TypeError, ValueError, NotImplementedError, OverflowError) as error:
        raise _invalid("the data set cannot be read") from error


def dataset_of(content: Content) -> Dataset:
    """Return the data set that the JSON model spells."""
    dataset = Dataset()
    for tag, entry in sorted(content.items()):
        vr, values = entry["vr"], entry.get("Value", [])
        value: Any
        if vr == "SQ":
            value = DicomSequence([dataset_of(item) for item in values])
        else:
            plain = [_name(each) if isinstance(each, Mapping) else each for each in values]
            value = (plain[0] if len(plain) == 1 else plain) if plain else None
        dataset.add(DataElement(int(tag, 16), vr, value, validation_mode=IGNORE))
    return dataset


class _Reader:
    def __init__(self) -> None:
        self._seen = 0

    def content(self, given: object, depth: int) -> Content:
        if not isinstance(given, Mapping):
            raise _invalid("a data set is a JSON object of tags")
        if depth > _DEPTH:
            raise _invalid("sequences are nested too deeply")
        read: dict[str, Any] = {}
        for tag, entry in given.items():
            self._seen += 1
            if self._seen > _ELEMENTS:
                raise _invalid(f"a data set has at most {_ELEMENTS} elements here")
            if not isinstance(tag, str) or _TAG.fullmatch(tag) is None or not isinstance(entry, Mapping):
                raise _invalid("every member of a data set is a tag of eight hexadecimal digits with an object")
            number = int(tag, 16)
            if keyword_for_tag(number):
                read[f"{number:08X}"] = self._entry(_vr(number), entry, depth)
        return read

    def _entry(self, vr: str, entry: Mapping[str, Any], depth: int) -> Content:
        values = entry.get("Value", [])
        if not isinstance(values, Sequence) or isinstance(values, str):
            raise _invalid("Value is a list")
        if vr == "SQ":
            read: list[Any] = [self.content(item, depth + 1) for item in values if item is not None]
        else:
            self._seen += len(values)
            read = [_checked(vr, value) for value in values if value is not None and value != ""]
        return {"vr": vr, "Value": read} if read else {"vr": vr}


def _checked(vr: str, value: object) -> Any:
    if vr == "PN" and isinstance(value, Mapping):
        return {group: _checked("LO", value[group]) for group in _GROUPS if value.get(group)}
    if vr == "PN" and isinstance(value, str):
        return _json_value("PN", _checked("LO", value))
    if vr in _NUMBERS and isinstance(value, int | float) and not isinstance(value, bool) and _fits(vr, value):
        return value
    if vr in _TEXTS and isinstance(value, str | int | float) and not isinstance(value, bool):
        text = str(value)
        if len(text) > _VALUE_LENGTH or "\0" in text:
            raise _invalid(f"a text has at most {_VALUE_LENGTH} characters")
        if _is_writable(vr, text):
            return text
    raise _invalid(f"a value does not fit its VR {vr}")


def _fits(vr: str, value: float) -> bool:
    if vr in _WHOLE:
        least, greatest = _WHOLE[vr]
        return isinstance(value, int) and least <= value <= greatest
    return -_REAL[vr] <= value <= _REAL[vr]  # so neither NaN nor infinite


def _is_writable(vr: str, text: str) -> bool:
    """Say whether a data set can hold a text: one that could not be encoded would be in everybody's way."""
    if vr in _DECIMAL and _DECIMAL[vr].fullmatch(text.strip()) is None:
        return False
    return text.isascii() or vr not in _DEFAULT_REPERTOIRE


def _spelled(dataset: Dataset, depth: int) -> dict[str, Any]:
    if depth > _DEPTH:
        raise _invalid("sequences are nested too deeply")
    spelled: dict[str, Any] = {}
    for each in dataset:
        if each.VR == "SQ":
            values: list[Any] = [_spelled(item, depth + 1) for item in each.value]
        elif each.VR in _TEXTS:
            values = [str(value) for value in _several(each.value)]
        elif each.VR in _NUMBERS:
            values = list(_several(each.value))
        else:
            continue
        spelled[f"{int(each.tag):08X}"] = {"vr": each.VR, "Value": values}
    return spelled


def _several(value: Any) -> Sequence[Any]:
    if value is None:
        return ()
    return value if isinstance(value, MultiValue | list) else (value,)


def _json_value(vr: str, value: Any) -> Any:
    if vr == "PN" and isinstance(value, str):
        return {group: part for group, part in zip(_GROUPS, value.split("="), strict=False) if part}
    return value


def _name(value: Mapping[str, Any]) -> str:
    return "=".join(str(value.get(group, "")) for group in _GROUPS).rstrip("=")


def _vr(tag: int) -> str:
    """Return the VR of a known tag; of several possible ones, the first."""
    return str(dictionary_VR(tag)).split(" ", maxsplit=1)[0]


def _invalid(sentence: str) -> WorkitemError:
    return WorkitemError(Refusal.INVALID_VALUE, sentence)
