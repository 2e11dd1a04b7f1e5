"""A C-FIND identifier or query parameters -> matching keys and what to return."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pydicom.datadict import keyword_for_tag, tag_for_keyword

from gateway.store.workitem_query import MATCHING
from gateway.workitem.model import tag_of, values_of
from gateway.workitem.refusal import Refusal, WorkitemError
from gateway.workitem.state import Content

MOST = 1000
"""Workitems in one answer at most."""
USUAL = 100
_CONTROL = frozenset({"limit", "offset", "includefield", "fuzzymatching", "accept", "charset"})
_TAG_LENGTH = 8
_ALWAYS = ("SpecificCharacterSet", "SOPClassUID", "SOPInstanceUID")


@dataclass(frozen=True, slots=True)
class Search:
    """What is searched."""

    keys: Mapping[str, str]
    """As of `store.workitem_query.conditions`."""
    wanted: frozenset[str] | None
    """Tags to return; None: all."""
    limit: int = USUAL
    offset: int = 0
    ignored: tuple[str, ...] = ()
    """Keys that cannot be matched."""


def search_of_parameters(parameters: Iterable[tuple[str, str]]) -> Search:
    """Return what query parameters ask for (PS3.18 8.3.4); WorkitemError where they cannot be read."""
    keys: dict[str, str] = {}
    included: list[str] = []
    counts = {"limit": USUAL, "offset": 0}
    for name, value in parameters:
        if name in counts:
            counts[name] = _count(name, value)
        elif name == "includefield":
            included += [part.strip() for part in value.split(",") if part.strip()]
        elif name not in _CONTROL:
            key = _key(name)
            if key not in MATCHING:
                raise _invalid(f"{key} is not supported as a matching key; these are: {', '.join(sorted(MATCHING))}")
            keys[key] = value
    wanted = _wanted(included)
    most = USUAL if wanted is None or not _NAMES_INSTANCES.isdisjoint(wanted) else MOST
    return Search(keys, wanted, min(counts["limit"], most), counts["offset"])


def search_of_identifier(identifier: Content) -> Search:
    """Return what a C-FIND identifier asks for (PS3.4 C.2.2.1); keys that cannot be matched are told, not refused."""
    keys: dict[str, str] = {}
    ignored: list[str] = []
    for name, value in _flat(identifier, ""):
        if name in MATCHING:
            keys[name] = value
        elif name != "SpecificCharacterSet":
            ignored.append(name)
    wanted = frozenset(identifier) | {tag_of(name) for name in _ALWAYS}
    return Search(keys, wanted, USUAL, ignored=tuple(ignored))


def returned(attributes: Content, wanted: frozenset[str] | None) -> Content:
    """Return the attributes that were asked for, as far as the workitem has them."""
    return attributes if wanted is None else {tag: entry for tag, entry in attributes.items() if tag in wanted}


def _flat(content: Content, prefix: str) -> Iterable[tuple[str, str]]:
    """Yield every key with a value; within a sequence, those of its first item."""
    for tag in content:
        keyword = keyword_for_tag(int(tag, 16))
        values = values_of(content, keyword)
        if values and isinstance(values[0], Mapping):
            yield from _flat(values[0], f"{prefix}{keyword}.")
        elif values:
            yield prefix + keyword, "\\".join(str(value).strip() for value in values)


def _key(name: str) -> str:
    return ".".join(_keyword(part) for part in name.split("."))


def _keyword(part: str) -> str:
    if len(part) == _TAG_LENGTH and (keyword := _keyword_of_tag(part)):
        return keyword
    if tag_for_keyword(part) is None:
        raise _invalid(f"{part[:64]!r} is neither a DICOM keyword nor a tag")
    return part


def _keyword_of_tag(part: str) -> str:
    try:
        return keyword_for_tag(int(part, 16))
    except ValueError:
        return ""


def _wanted(included: list[str]) -> frozenset[str] | None:
    """Return the tags of a usual answer and those included; None: all."""
    if "all" in included:
        return None
    asked = {tag_of(_keyword(name.split(".")[0])) for name in included}
    return _USUAL | asked


def _count(name: str, value: str) -> int:
    if not value.isascii() or not value.isdecimal() or len(value) > 9:  # noqa: PLR2004 # digits of a count
        raise _invalid(f"{name} is a whole number, not {value[:20]!r}")
    return int(value)


def _invalid(sentence: str) -> WorkitemError:
    return WorkitemError(Refusal.INVALID_VALUE, sentence)


_NAMES_INSTANCES = frozenset(
    map(tag_of, ("InputInformationSequence", "UnifiedProcedureStepPerformedProcedureSequence"))
)
_USUAL = frozenset(
    tag_of(name)
    for name in (
        *_ALWAYS,
        "ScheduledProcedureStepPriority",
        "ScheduledProcedureStepModificationDateTime",
        "ProcedureStepLabel",
        "WorklistLabel",
        "ScheduledStationNameCodeSequence",
        "ScheduledHumanPerformersSequence",
        "ScheduledProcedureStepStartDateTime",
        "ExpectedCompletionDateTime",
        "ScheduledWorkitemCodeSequence",
        "CommentsOnTheScheduledProcedureStep",
        "InputReadinessState",
        "PatientName",
        "PatientID",
        "IssuerOfPatientID",
        "PatientBirthDate",
        "PatientSex",
        "AdmissionID",
        "StudyInstanceUID",
        "ReferencedRequestSequence",
        "ProcedureStepState",
        "ProcedureStepProgressInformationSequence",
    )
)
"""What a search over HTTP returns unasked: all but what names instances."""
