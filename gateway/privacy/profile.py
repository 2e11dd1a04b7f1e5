"""What becomes of each attribute: table E.1-1 of PS3.15 as the package dicom-anonymizer brings it, and our options.

Options: Clean Structured Content, Clean Descriptors, Retain Longitudinal Temporal Information with Modified Dates,
Retain Patient Characteristics. Not taken: Retain UIDs, Retain Device Identity, Retain Institution Identity, Retain Safe
Private, Clean Pixel Data, Clean Recognizable Visual Features; objects that would need the last two are not sent.
"""

from __future__ import annotations

from typing import Literal

from dicomanonymizer.dicom_anonymization_databases import dicomfields_2026c as table

Act = Literal["remove", "empty", "dummy", "uid"]

_SIMPLE_TAG = 2
OPTIONS = (
    ("113100", "Basic Application Confidentiality Profile"),
    ("113104", "Clean Structured Content Option"),
    ("113105", "Clean Descriptors Option"),
    ("113107", "Retain Longitudinal Temporal Information Modified Dates Option"),
    ("113108", "Retain Patient Characteristics Option"),
)
"""PS3.16 CID 7050: what is written into every object."""
CHARACTERISTICS = frozenset(
    {
        0x00100040,  # Patient's Sex
        0x00101010,  # Patient's Age
        0x00101020,  # Patient's Size
        0x00101030,  # Patient's Weight
        0x001021A0,  # Smoking Status
        0x001021C0,  # Pregnancy Status
        0x00102203,  # Patient's Sex Neutered
    }
)
"""Retain Patient Characteristics: those that are no free text."""
DESCRIPTORS = frozenset({0x0008103E, 0x00081090, 0x00700080, 0x00700081})
"""Clean Descriptors: in our own results these are texts of the program; in what others made they go."""
BIRTH_DATES = frozenset({0x00100030, 0x00100032, 0x00100033, 0x00100034, 0x00100035})
"""Dates that no option retains."""
TEMPORAL = frozenset({"DA", "DT", "TM"})
_PRIVATE_GROUPS = frozenset({0x5000, 0x6000})
_GROUP_MASK = 0xFF00


def _acts() -> dict[int, Act]:
    """Return tag -> what becomes of it; where the table leaves a choice, the one that keeps an object conformant."""
    lists: tuple[tuple[list[tuple[int, ...]], Act], ...] = (
        (table.X_TAGS, "remove"),
        (table.Z_TAGS, "empty"),
        (table.X_Z_TAGS, "empty"),
        (table.D_TAGS, "dummy"),
        (table.Z_D_TAGS, "dummy"),
        (table.X_D_TAGS, "dummy"),
        (table.X_Z_D_TAGS, "dummy"),
        (table.U_TAGS, "uid"),
    )
    # References to images and studies (X/Z/U*) stand in no list: the sequence stays, the UIDs in it are replaced.
    return {(tag[0] << 16) | tag[1]: act for tags, act in lists for tag in tags if len(tag) == _SIMPLE_TAG}


ACTS = _acts()


def act_of(tag: int) -> Act | None:
    """Return what becomes of an attribute by the Basic Profile; None: it stays."""
    group = tag >> 16
    if group & _GROUP_MASK in _PRIVATE_GROUPS:  # curves, and overlays, whose bits may draw a name
        return "remove"
    return ACTS.get(tag)
