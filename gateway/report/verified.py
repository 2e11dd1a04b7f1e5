"""A report that a person verified: the predecessor's document with what the person says (PS3.3 C.17.2, C.17.3).

It is made from the stored document, not from the findings: what was accepted is what was seen, to the last item. New
are its identity and dates, the flags, the Verifying Observer, the person beside the algorithm as observer
(PS3.16 TID 1002, 1003) and the reference to the predecessor; corrections change only the groups that they are about.
"""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import UID

from gateway.report import content as tree
from gateway.report.assignment import ObjectReference, zone
from gateway.report.characters import in_ascii, make_room
from gateway.report.evidence import by_series
from gateway.report.figures import EPISTEMIC, UNCERTAINTY
from gateway.verification.corrections import Answer, Changes
from gateway.verification.verdict import Observer, Verification
from inference.findings import Finding

_CONTEXT = "HAS OBS CONTEXT"
_PERSON_CODES = (tree.PERSON_NAME, tree.PERSON_ORGANISATION)
TrackingUid = Callable[[str], str]
"""Tracking identifier -> the UID that the predecessor has for it."""


@dataclass(frozen=True, slots=True)
class Replacement:
    """A segmentation written anew, and where its segments and frames have gone."""

    old_sop_instance_uid: str
    new: ObjectReference
    numbers: dict[int, int]
    """Segment numbers, old to new, of those that stay."""
    frames: dict[int, int]
    """Frame numbers, from 1, old to new, of those that stay."""


def verified_report(  # noqa: PLR0913 # what a verified report is made of, by name
    predecessor: Dataset,
    *,
    reference: ObjectReference,
    verification: Verification,
    changes: Changes,
    tracking_uid: TrackingUid,
    replacement: Replacement | None = None,
) -> Dataset:
    """Return the verified document, ready for `encoded`.

    Parameters
    ----------
    predecessor
        The document that the person saw; it stays as it is.
    reference
        The new document's identity.
    verification
        Who, when and what.
    changes
        What the person corrected of this outcome.
    tracking_uid
        Names the groups.
    replacement
        The segmentation that takes the place of the one referred to; None: it stays.
    """
    document = copy.deepcopy(predecessor)
    if not make_room(document, [verification.observer, verification.organisation, verification.comment]):
        verification = replace(
            verification,
            observer=in_ascii(verification.observer),
            organisation=in_ascii(verification.organisation),
            comment=in_ascii(verification.comment),
        )
    renew(document, reference, verification.verified_at)
    document.CompletionFlag, document.PreliminaryFlag, document.VerificationFlag = "COMPLETE", "FINAL", "VERIFIED"
    document.pop("CompletionFlagDescription", None)
    document.VerifyingObserverSequence = [_verifier(verification)]
    document.PredecessorDocumentsSequence = by_series([_reference_to(predecessor)])
    _put_person(document, verification.who)
    _correct_groups(document, changes, tracking_uid, verification.who)
    if verification.comment:  # in the first group that stays
        comment = tree.text_item("CONTAINS", tree.COMMENT, verification.comment)
        for group in tree.measurement_groups(document)[:1]:
            group.ContentSequence.append(comment)
    if replacement is not None:
        _point_to(document, replacement)
    return document


def renew(dataset: Dataset, reference: ObjectReference, at: datetime) -> None:
    """Give a copy its own identity and dates, in the zone of its other times."""
    dataset.SeriesInstanceUID, dataset.SOPInstanceUID = reference.series_instance_uid, reference.sop_instance_uid
    dataset.file_meta.MediaStorageSOPInstanceUID = UID(reference.sop_instance_uid)
    local = at.astimezone(zone(dataset.get("TimezoneOffsetFromUTC")) or at.tzinfo)
    for keyword in ("InstanceCreation", "Content"):
        setattr(dataset, f"{keyword}Date", local.strftime("%Y%m%d"))
        setattr(dataset, f"{keyword}Time", local.strftime("%H%M%S.%f"))


def encoded(dataset: Dataset) -> bytes:
    """Return the bytes of the file."""
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def _verifier(verification: Verification) -> Dataset:
    """Return the item of the Verifying Observer Sequence (PS3.3 table C.17-2)."""
    item = Dataset()
    item.VerifyingObserverName = verification.observer
    item.VerifyingOrganization = verification.organisation
    item.VerificationDateTime = verification.verified_at.strftime("%Y%m%d%H%M%S.%f%z")
    item.VerifyingObserverIdentificationCodeSequence = []
    return item


def _put_person(document: Dataset, who: Observer) -> None:
    """Put the person behind the algorithm as observer; an earlier verifier stays in the predecessor."""
    items = [each for each in tree.children(document) if not _is_of_person(each)]
    last = max(number for number, each in enumerate(items) if each.get("RelationshipType") == _CONTEXT)
    person = [
        tree.code_item(_CONTEXT, tree.OBSERVER_TYPE, tree.PERSON),
        tree.person_item(_CONTEXT, tree.PERSON_NAME, who.name),
        tree.text_item(_CONTEXT, tree.PERSON_ORGANISATION, who.organisation),
    ]
    document.ContentSequence = [*items[: last + 1], *person, *items[last + 1 :]]


def _is_of_person(item: Dataset) -> bool:
    is_type = tree.is_named(item, tree.OBSERVER_TYPE) and item.ConceptCodeSequence[0].CodeValue == tree.PERSON.value
    return is_type or any(tree.is_named(item, name) for name in _PERSON_CODES)


def _correct_groups(document: Dataset, changes: Changes, tracking_uid: TrackingUid, who: Observer) -> None:
    gone = {tracking_uid(each.tracking_id) for each in changes.withdrawn}
    gone |= {tracking_uid(each.tracking_id) for each in changes.removed}
    groups = tree.measurement_groups(document)
    tree.keep_groups(document, [each for each in groups if tree.tracking_uid(each) not in gone])
    for answer in changes.answers:
        uid = tracking_uid(answer.finding.tracking_id)
        for group in tree.measurement_groups(document):
            if tree.tracking_uid(group) == uid:
                _correct_group(group, answer, who)
            _correct_inferences(group, answer.finding, uid)


def _correct_group(group: Dataset, answer: Answer, who: Observer) -> None:
    """Put the person's answer into a TID 1501 group.

    The algorithm's identification, its probability and its uncertainty leave the group, for they are not of this
    answer; they stay in the predecessor, and the comment tells what was said before.
    """
    finding, was = answer.finding, answer.was
    items = tree.children(group)
    has_probability = any(tree.is_named(each, tree.PROBABILITY) for each in items)
    kept = [each for each in items if not (_is_figure(each) or _names_algorithm(each))]
    for each in kept:
        if each.ValueType == "CODE" and (tree.is_named(each, tree.FINDING) or tree.is_named(each, finding.question)):
            each.ConceptCodeSequence = [tree.coded(finding.answer.code)]
    probability = f" ({100 * was.probability:.1f} %)" if has_probability else ""
    said = f"Corrected by {who.display}. Before: {was.code.meaning}{probability}."
    group.ContentSequence = [*kept, tree.text_item("CONTAINS", tree.COMMENT, said)]


def _is_figure(item: Dataset) -> bool:
    return any(tree.is_named(item, name) for name in (tree.PROBABILITY, UNCERTAINTY, EPISTEMIC))


def _names_algorithm(item: Dataset) -> bool:
    name = (item.get("ConceptNameCodeSequence") or [Dataset()])[0]
    return name.get("CodingSchemeDesignator") == "DCM" and name.get("CodeValue") in tree.ALGORITHM_CODES


def _correct_inferences(group: Dataset, finding: Finding, uid: str) -> None:
    """Correct the answer above, where a group tells that it was inferred from it."""
    for item in tree.below(group):
        if item.get("RelationshipType") == "INFERRED FROM" and tree.tracking_uid(item) == uid:
            item.ConceptCodeSequence = [tree.coded(finding.answer.code)]


def _point_to(document: Dataset, replacement: Replacement) -> None:
    """Let a document refer to the new segmentation, in its tree and in its evidence."""
    for item in tree.below(document):
        for target in item.get("ReferencedSOPSequence") or ():
            if target.ReferencedSOPInstanceUID == replacement.old_sop_instance_uid:
                target.ReferencedSOPInstanceUID = replacement.new.sop_instance_uid
                if "ReferencedSegmentNumber" in target:
                    target.ReferencedSegmentNumber = replacement.numbers[int(target.ReferencedSegmentNumber)]
                if "ReferencedFrameNumber" in target:
                    target.ReferencedFrameNumber = replacement.frames[int(target.ReferencedFrameNumber)]
    evidence = [
        replace(replacement.new, sop_class_uid=each.sop_class_uid)
        if each.sop_instance_uid == replacement.old_sop_instance_uid
        else each
        for each in _references(document.CurrentRequestedProcedureEvidenceSequence)
    ]
    document.CurrentRequestedProcedureEvidenceSequence = by_series(evidence)


def _references(evidence: Sequence[Dataset]) -> list[ObjectReference]:
    return [
        ObjectReference(
            kind="evidence",
            study_instance_uid=str(study.StudyInstanceUID),
            series_instance_uid=str(series.SeriesInstanceUID),
            sop_class_uid=str(instance.ReferencedSOPClassUID),
            sop_instance_uid=str(instance.ReferencedSOPInstanceUID),
        )
        for study in evidence
        for series in study.ReferencedSeriesSequence
        for instance in series.ReferencedSOPSequence
    ]


def _reference_to(document: Dataset) -> ObjectReference:
    return ObjectReference(
        kind="predecessor",
        study_instance_uid=str(document.StudyInstanceUID),
        series_instance_uid=str(document.SeriesInstanceUID),
        sop_class_uid=str(document.SOPClassUID),
        sop_instance_uid=str(document.SOPInstanceUID),
    )
