"""The DICOM JSON model -> the Native DICOM Model in XML (PS3.19 A.1, PS3.18 8.7.3.2), for clients that ask for it.

A list of data sets is `multipart/related; type="application/dicom+xml"`, a part for each.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from pydicom.datadict import keyword_for_tag

from gateway.web.dicomweb.multipart import closing, part_head
from gateway.web.dicomweb.negotiation import DICOM_XML

_HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n'
_ROOT = '<NativeDicomModel xmlns="http://dicom.nema.org/PS3.19/models/NativeDICOM" xml:space="preserve">'
_COMPONENTS = ("FamilyName", "GivenName", "MiddleName", "NamePrefix", "NameSuffix")
_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")
_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 cannot hold in any form."""
_LINE_END = {"\r": "&#13;"}
"""A parser would otherwise make a line feed of it."""
_FIRST_CREATOR, _LAST_CREATOR = 0x10, 0xFF

JsonModel = Mapping[str, Mapping[str, Any]]


def native_xml(model: JsonModel) -> bytes:
    """Return one data set as a document.

    Parameters
    ----------
    model
        In the DICOM JSON model (PS3.18 F), of well-formed elements.
    """
    return f"{_HEAD}{_ROOT}{_attributes(model)}</NativeDicomModel>".encode()


def xml_parts(models: Iterable[JsonModel], boundary: str) -> bytes:
    """Return data sets as the body of a multipart message, its end left out: `closing` gives it."""
    documents = map(native_xml, models)
    return b"".join(part_head(boundary, DICOM_XML, len(each)) + each + b"\r\n" for each in documents)


def xml_message(models: Iterable[JsonModel], boundary: str) -> bytes:
    """Return data sets as the whole body of a multipart message."""
    return xml_parts(models, boundary) + closing(boundary)


def multipart_type(boundary: str) -> str:
    """Return the Content-Type of such a message."""
    return f'multipart/related; type="{DICOM_XML}"; boundary={boundary}'


def _attributes(model: JsonModel) -> str:
    return "".join(_attribute(tag, model[tag], _creator(model, tag)) for tag in sorted(model))


def _attribute(tag: str, element: Mapping[str, Any], creator: str | None) -> str:
    keyword = keyword_for_tag(int(tag, 16))
    names = f'tag="{tag}" vr="{element["vr"]}"'
    if keyword:
        names += f' keyword="{keyword}"'
    if creator is not None:
        names += f" privateCreator={quoteattr(_text(creator))}"
    return f"<DicomAttribute {names}>{_content(element)}</DicomAttribute>"


def _content(element: Mapping[str, Any]) -> str:
    if "BulkDataURI" in element:
        return f"<BulkData uri={quoteattr(element['BulkDataURI'])}/>"
    if "InlineBinary" in element:
        return f"<InlineBinary>{element['InlineBinary']}</InlineBinary>"
    vr, values = element["vr"], element.get("Value", ())
    return "".join(_value(vr, number, value) for number, value in enumerate(values, 1))


def _value(vr: str, number: int, value: Any) -> str:
    if vr == "SQ":
        return f'<Item number="{number}">{_attributes(value)}</Item>'
    if value is None:
        return "" if vr == "PN" else f'<Value number="{number}"/>'
    if vr == "PN":
        return f'<PersonName number="{number}">{_person_name(value)}</PersonName>'
    return f'<Value number="{number}">{_escaped(str(value))}</Value>'


def _person_name(groups: Mapping[str, str]) -> str:
    return "".join(f"<{group}>{_components(groups[group])}</{group}>" for group in _GROUPS if group in groups)


def _components(group: str) -> str:
    # What follows a fifth component breaks PS3.5 6.2; it stays with the last rather than being lost.
    parts: Sequence[str] = group.split("^", len(_COMPONENTS) - 1)
    named = zip(_COMPONENTS, parts, strict=False)
    return "".join(f"<{name}>{_escaped(part)}</{name}>" for name, part in named if part)


def _creator(model: JsonModel, tag: str) -> str | None:
    """Return who reserved the block of a private element (PS3.5 7.8.1); None for others and for reservations."""
    group, element = int(tag[:4], 16), int(tag[4:], 16)
    block = element >> 8
    if group % 2 == 0 or not _FIRST_CREATOR <= block <= _LAST_CREATOR:
        return None
    values = model.get(f"{group:04X}{block:04X}", {}).get("Value") or [None]
    return None if values[0] is None else str(values[0])


def _escaped(text: str) -> str:
    return escape(_text(text), _LINE_END)


def _text(text: str) -> str:
    return _NOT_IN_XML.sub("\ufffd", text)
