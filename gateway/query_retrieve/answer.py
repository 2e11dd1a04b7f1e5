"""What an identifier of C-FIND asks for, and the identifiers that answer it (PS3.4 C.4.1.1, C.4.1.3)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from pydicom import config
from pydicom.charset import python_encoding
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from gateway.query import Match, Query, matching_tags, return_tags
from gateway.query.attributes import ATTRIBUTES, PATIENT_ID, REQUEST_ATTRIBUTES
from gateway.query_retrieve.model import (
    QUERY_RETRIEVE_LEVEL,
    UNIQUE_KEYS,
    InformationModel,
    key_text,
    level_of,
    levels_above,
    parent_keys,
)

_SPECIFIC_CHARACTER_SET, _RETRIEVE_AE_TITLE, _INSTANCE_AVAILABILITY = 0x00080005, 0x00080054, 0x00080056
_TIMEZONE = 0x00080201
_NO_KEYS = frozenset({_SPECIFIC_CHARACTER_SET, QUERY_RETRIEVE_LEVEL, _RETRIEVE_AE_TITLE, _TIMEZONE})
"""What an identifier holds besides its keys."""
_UTF8 = "ISO_IR 192"
_ALL_KEPT, _SOME_NOT_KEPT = 0xFF00, 0xFF01
_VRS: Mapping[int, str] = {each.tag: each.vr for each in ATTRIBUTES}
_IN_REQUEST = frozenset(each.tag for each in ATTRIBUTES if each.sequence == REQUEST_ATTRIBUTES)


class Asked:
    """A C-FIND identifier, understood.

    Parameters
    ----------
    identifier
        As it came.
    model
        Patient Root or Study Root.
    is_relational
        Whether unique keys of higher levels may be left out.

    Raises
    ------
    DataSetMismatchError
        The identifier does not fit the model (A900).
    """

    def __init__(self, identifier: Dataset, model: InformationModel, *, is_relational: bool) -> None:
        self._identifier = identifier
        self.level = level_of(identifier, model)
        self._parents = parent_keys(identifier, self.level, model, is_relational=is_relational)
        self._uniques = [UNIQUE_KEYS[each] for each in (*levels_above(self.level, model), self.level)]
        tags = [element.tag for element in identifier if element.tag.element and not element.tag.is_private]
        self._tags = [int(tag) for tag in tags if tag not in _NO_KEYS]
        self._request_tags = [int(element.tag) for item in _items(identifier) for element in item]
        self._charset = str(identifier.get("SpecificCharacterSet") or "")

    def query(self, *, is_fuzzy: bool, is_combined: bool) -> Query:
        """Return the query that it stands for."""
        known = matching_tags(self.level)
        keys = {tag: key_text(self._identifier, tag) for tag in self._tags if tag in known and tag not in self._parents}
        for item in _items(self._identifier):
            keys |= {tag: key_text(item, tag) for tag in _IN_REQUEST & known}
        return Query(
            self.level,
            keys={tag: text for tag, text in keys.items() if text},
            parents=self._parents,
            is_fuzzy=is_fuzzy,
            is_combined=is_combined,
            wanted=frozenset((*self._tags, *self._uniques)) & return_tags(self.level),
        )

    @property
    def pending_status(self) -> int:
        """FF00, or FF01 where a key was asked for that is not kept, or not for matching."""
        kept, matched = return_tags(self.level) | {_INSTANCE_AVAILABILITY}, matching_tags(self.level)
        is_kept = kept.issuperset(self._tags) and _IN_REQUEST.issuperset(self._request_tags)
        is_matched = all(
            tag in matched or tag in (REQUEST_ATTRIBUTES, _INSTANCE_AVAILABILITY) or not key_text(self._identifier, tag)
            for tag in self._tags
        )
        return _ALL_KEPT if is_kept and is_matched else _SOME_NOT_KEPT

    def unique_key(self, match: Match) -> tuple[object, ...]:
        """Return what tells a match from all others of its level."""
        if self.level == "PATIENT":  # two patients of different issuers may have one id
            return tuple(str(match.get(tag)) for tag in sorted(match))
        return tuple(match[tag] for tag in self._uniques if tag != PATIENT_ID)

    def answer(self, match: Match, ae_title: str) -> Dataset:
        """Return the identifier for one match: the keys asked for and kept, and where it can be retrieved from."""
        answer = Dataset()
        for tag in {*self._tags, *self._uniques} & return_tags(self.level):
            if tag == REQUEST_ATTRIBUTES:
                answer.add(DataElement(tag, "SQ", self._request_items(match.get(tag))))
            elif tag in _VRS:
                answer.add(_element(tag, _VRS[tag], match.get(tag)))
        answer.add(_element(QUERY_RETRIEVE_LEVEL, "CS", self.level))
        answer.add(_element(_RETRIEVE_AE_TITLE, "AE", ae_title))
        if self.level != "PATIENT":
            answer.add(_element(_INSTANCE_AVAILABILITY, "CS", "ONLINE"))
        answer.add(_element(_SPECIFIC_CHARACTER_SET, "CS", _charset(self._charset, answer)))
        return answer

    def _request_items(self, value: object) -> list[Dataset]:
        """Return the items of Request Attributes Sequence with the keys asked for, all of them if none was."""
        items = []
        for found in value if isinstance(value, Sequence) and not isinstance(value, str) else ():
            item = Dataset()
            for tag in self._request_tags or sorted(_IN_REQUEST):
                if tag in _IN_REQUEST:
                    item.add(_element(tag, _VRS[tag], found.get(tag)))
            items.append(item)
        return items


def _items(identifier: Dataset) -> Iterable[Dataset]:
    element = identifier.get(Tag(REQUEST_ATTRIBUTES))
    return list(element.value)[:1] if element is not None and element.VR == "SQ" else []


def _element(tag: int, vr: str, value: object) -> DataElement:
    # What was received goes out as it is, whether or not it is valid.
    plain = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
    return DataElement(tag, vr, "" if plain is None else plain, validation_mode=config.IGNORE)


def _charset(requested: str, answer: Dataset) -> str:
    """Return the character set asked for where it can say everything, else UTF-8."""
    codec = python_encoding.get(requested) if requested else None
    if codec is None:
        return _UTF8
    try:
        for element in answer.iterall():
            if element.VR != "SQ":
                str(element.value).encode(codec)
    except (UnicodeEncodeError, LookupError):
        return _UTF8
    return requested
