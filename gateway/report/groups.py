"""Measurement groups of an SR: one template kind per report (PS3.16 TID 1501, 1410, 1411)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TypeAlias, TypedDict

import highdicom as hd
from pydicom.dataset import Dataset

from gateway.report.content import PROBABILITY
from gateway.report.equipment import concept, identification
from gateway.report.figures import uncertainties
from gateway.report.identity import Rendering, own_text
from gateway.report.seg import segment_frame
from gateway.report.wording import label_set_words
from inference.findings import Code, Finding, Findings, Measurement, NotEvaluable, Segment

_PERCENT = hd.sr.CodedConcept("%", "UCUM", "%")
_NOT_EVALUATED = hd.sr.CodedConcept("373121007", "SCT", "Not Evaluated")
_EVALUABILITY = hd.sr.CodedConcept("evaluability", "99HYBRIDMED", "Evaluability")
_COMMENT = hd.sr.CodedConcept("121106", "DCM", "Comment")
_TRACKING_UID = hd.sr.CodedConcept("112040", "DCM", "Tracking Unique Identifier")
_PERCENT_DECIMALS = 4

Group: TypeAlias = (
    hd.sr.MeasurementsAndQualitativeEvaluations
    | hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations
    | hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations
)


class _SegmentContent(TypedDict):
    """Arguments that TID 1410 and TID 1411 share."""

    tracking_identifier: hd.sr.TrackingIdentifier
    finding_category: hd.sr.CodedConcept
    finding_type: hd.sr.CodedConcept
    finding_sites: list[hd.sr.FindingSite]
    algorithm_id: hd.sr.AlgorithmIdentification
    measurements: list[hd.sr.Measurement]


def finding_groups(
    rendering: Rendering, outcome: Findings, image: Dataset | None
) -> list[hd.sr.MeasurementsAndQualitativeEvaluations]:
    """Return one TID 1501 group per level of the label hierarchy.

    Each holds the answer to the level's question, its probability and its uncertainty in percent, and, under the
    answer, the answer of the level above from which it was inferred, with that finding's tracking UID; and as a
    comment the classes among which the true one is, where the model states a coverage.

    Parameters
    ----------
    rendering, outcome
        What is rendered.
    image
        Stand-in of the one image that the findings are about; None for a volume.
    """
    by_id = {finding.tracking_id: finding for finding in outcome.findings}
    return [_finding_group(rendering, finding, by_id, image) for finding in outcome.findings]


def not_evaluable_group(
    rendering: Rendering, outcome: NotEvaluable
) -> list[hd.sr.MeasurementsAndQualitativeEvaluations]:
    """Return the one TID 1501 group that says that nothing was evaluated, and why."""
    group = hd.sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(rendering, "evaluability"),
        algorithm_id=identification(outcome.algorithm),
        qualitative_evaluations=[hd.sr.QualitativeEvaluation(_EVALUABILITY, _NOT_EVALUATED)],
    )
    _comment(rendering, group, f"Not evaluable ({outcome.code}): {outcome.reason}")
    return [group]


def planar_groups(
    rendering: Rendering, outcome: Findings, segmentation: Dataset, image: Dataset
) -> list[hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations]:
    """Return one TID 1410 group per segment of a single image; each refers to the segment's frame."""
    frame = outcome.frames[0]
    source = hd.sr.SourceImageForSegmentation(
        image.SOPClassUID, image.SOPInstanceUID, None if frame.frame_number is None else [frame.frame_number]
    )
    return [
        hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations(
            referenced_segment=_segment_frame_reference(segmentation, segment, source),
            **_segment_content(rendering, segment),
        )
        for segment in outcome.segments
    ]


def volumetric_groups(
    rendering: Rendering, outcome: Findings, segmentation: Dataset
) -> list[hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations]:
    """Return one TID 1411 group per segment of a volume; each refers to the segment and the source series."""
    series = hd.sr.SourceSeriesForSegmentation(outcome.series_instance_uid)
    return [
        hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
            referenced_segment=hd.sr.ReferencedSegment(
                segmentation.SOPClassUID, segmentation.SOPInstanceUID, segment.number, source_series=series
            ),
            **_segment_content(rendering, segment),
        )
        for segment in outcome.segments
    ]


def _finding_group(
    rendering: Rendering, finding: Finding, by_id: Mapping[str, Finding], image: Dataset | None
) -> hd.sr.MeasurementsAndQualitativeEvaluations:
    evaluation = hd.sr.QualitativeEvaluation(concept(finding.question), concept(finding.answer.code))
    parent = by_id.get(finding.parent_id or "")
    if parent is not None:
        evaluation[0].ContentSequence = hd.sr.ContentSequence([_inferred_from(rendering, parent)])
    images = [hd.sr.SourceImageForMeasurementGroup(image.SOPClassUID, image.SOPInstanceUID)] if image else None
    group = hd.sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(rendering, finding.tracking_id),
        finding_type=concept(finding.answer.code),
        algorithm_id=identification(rendering.algorithm),
        finding_sites=[hd.sr.FindingSite(concept(finding.site))] if finding.site else None,
        measurements=[hd.sr.Measurement(concept(name), share, _PERCENT) for name, share in _shares(finding)],
        qualitative_evaluations=[evaluation],
        source_images=images,
    )
    said = label_set_words(finding)
    if said is not None:
        _comment(rendering, group, said)
    return group


def _shares(finding: Finding) -> Iterator[tuple[Code, float]]:
    """Yield what is told in percent: the answer's probability, how undecided the algorithm is, and the model's part."""
    told = ((PROBABILITY, finding.answer.probability), *uncertainties(finding))
    for name, share in told:
        yield name, round(100.0 * share, _PERCENT_DECIMALS)


def _comment(rendering: Rendering, group: hd.sr.MeasurementsAndQualitativeEvaluations, text: str) -> None:
    said = own_text(rendering, text)
    group[0].ContentSequence.append(hd.sr.TextContentItem(_COMMENT, said, hd.sr.RelationshipTypeValues.CONTAINS))


def _inferred_from(rendering: Rendering, parent: Finding) -> hd.sr.CodeContentItem:
    item = hd.sr.CodeContentItem(
        concept(parent.question), concept(parent.answer.code), hd.sr.RelationshipTypeValues.INFERRED_FROM
    )
    uid = rendering.uid(f"tracking/{parent.tracking_id}")
    item.ContentSequence = hd.sr.ContentSequence(
        [hd.sr.UIDRefContentItem(_TRACKING_UID, uid, hd.sr.RelationshipTypeValues.HAS_OBS_CONTEXT)]
    )
    return item


def _segment_frame_reference(
    segmentation: Dataset, segment: Segment, source: hd.sr.SourceImageForSegmentation
) -> hd.sr.ReferencedSegmentationFrame:
    """Return the reference to a segment by its frame, or, in a label map, by its number: never by both.

    Referenced Segment Number shall not stand beside Referenced Frame Number (PS3.3 table 10-3), but highdicom
    writes the two.
    """
    frame = segment_frame(segmentation, segment.number)
    reference = hd.sr.ReferencedSegmentationFrame(
        segmentation.SOPClassUID, segmentation.SOPInstanceUID, frame or 1, segment.number, source
    )
    instance = reference[0].ReferencedSOPSequence[0]
    if frame is None:
        del instance.ReferencedFrameNumber
    else:
        del instance.ReferencedSegmentNumber
    return reference


def _segment_content(rendering: Rendering, segment: Segment) -> _SegmentContent:
    """Return what a segment's group holds in either template.

    What could not be measured, as the mean of an empty segment, is left out: readers expect a value in every NUM.
    """
    site = hd.sr.FindingSite(
        concept(segment.type), laterality=concept(segment.laterality) if segment.laterality else None
    )
    return {
        "tracking_identifier": _tracking(rendering, segment.tracking_id),
        "finding_category": concept(segment.category),
        "finding_type": concept(segment.type),
        "finding_sites": [site],
        "algorithm_id": identification(rendering.algorithm),
        "measurements": [_measurement(m) for m in segment.measurements if math.isfinite(m.value)],
    }


def _measurement(measurement: Measurement) -> hd.sr.Measurement:
    return hd.sr.Measurement(concept(measurement.quantity), float(measurement.value), concept(measurement.unit))


def _tracking(rendering: Rendering, tracking_id: str) -> hd.sr.TrackingIdentifier:
    return hd.sr.TrackingIdentifier(rendering.uid(f"tracking/{tracking_id}"), tracking_id)
