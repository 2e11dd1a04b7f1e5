"""Content items of an SR tree by hand, for trees that exist already: made, found, taken out (PS3.3 C.17.3).

highdicom builds the trees of new results; a verified one is the predecessor's with few items changed.
"""

from __future__ import annotations

from collections.abc import Iterator

from pydicom.dataset import Dataset

from inference.findings import Code

OBSERVER_TYPE = Code("121005", "DCM", "Observer Type")
PERSON = Code("121006", "DCM", "Person")
PERSON_NAME = Code("121008", "DCM", "Person Observer Name")
PERSON_ORGANISATION = Code("121009", "DCM", "Person Observer's Organization Name")
COMMENT = Code("121106", "DCM", "Comment")
FINDING = Code("121071", "DCM", "Finding")
PROBABILITY = Code("122157", "DCM", "Probability")
TRACKING_UID = Code("112040", "DCM", "Tracking Unique Identifier")
MEASUREMENTS = Code("126010", "DCM", "Imaging Measurements")
ALGORITHM_CODES = frozenset({"111000", "111001", "111002", "111003", "122405"})
"""DCM code values of Algorithm Identification (PS3.16 TID 4019): family, name, parameters, version, manufacturer."""


def coded(code: Code) -> Dataset:
    """Return a code sequence item (PS3.3 table 8.8-1)."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, code.scheme, code.meaning
    return item


def code_item(relationship: str, name: Code, value: Code) -> Dataset:
    """Return a CODE content item."""
    item = _item(relationship, "CODE", name)
    item.ConceptCodeSequence = [coded(value)]
    return item


def text_item(relationship: str, name: Code, value: str) -> Dataset:
    """Return a TEXT content item."""
    item = _item(relationship, "TEXT", name)
    item.TextValue = value
    return item


def person_item(relationship: str, name: Code, value: str) -> Dataset:
    """Return a PNAME content item."""
    item = _item(relationship, "PNAME", name)
    item.PersonName = value
    return item


def is_named(item: Dataset, name: Code) -> bool:
    """Say whether an item has this concept name."""
    names = item.get("ConceptNameCodeSequence")
    return bool(names) and (names[0].get("CodeValue"), names[0].get("CodingSchemeDesignator")) == (
        name.value,
        name.scheme,
    )


def children(item: Dataset) -> list[Dataset]:
    """Return the items right below one."""
    return list(item.get("ContentSequence") or ())


def below(item: Dataset) -> Iterator[Dataset]:
    """Yield all items below one, each before those below it."""
    for child in children(item):
        yield child
        yield from below(child)


def measurement_groups(document: Dataset) -> list[Dataset]:
    """Return the measurement groups of a TID 1500 document."""
    (container,) = (each for each in children(document) if is_named(each, MEASUREMENTS))
    return children(container)


def keep_groups(document: Dataset, groups: list[Dataset]) -> None:
    """Leave only these measurement groups in a TID 1500 document."""
    (container,) = (each for each in children(document) if is_named(each, MEASUREMENTS))
    container.ContentSequence = groups


def tracking_uid(group: Dataset) -> str:
    """Return the tracking UID of a measurement group; '' where it has none."""
    return next((str(each.UID) for each in children(group) if is_named(each, TRACKING_UID)), "")


def _item(relationship: str, value_type: str, name: Code) -> Dataset:
    item = Dataset()
    item.RelationshipType, item.ValueType = relationship, value_type
    item.ConceptNameCodeSequence = [coded(name)]
    return item
