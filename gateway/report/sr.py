"""Findings and measurements as Comprehensive 3D SR (PS3.3 A.35.13, PS3.16 TID 1500)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import highdicom as hd
from highdicom.base import SOPClass
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from gateway.report.assignment import ObjectReference
from gateway.report.equipment import concept, observer
from gateway.report.evidence import by_series
from gateway.report.groups import Group, finding_groups, not_evaluable_group, planar_groups, volumetric_groups
from gateway.report.identity import RenderedObject, Rendering, finish, own_text
from gateway.report.image_library import image_library, planes_with_findings
from gateway.report.modules import referenced_requests
from gateway.report.procedure import procedure_reported
from gateway.report.source import stand_in
from inference.findings import Findings, NotEvaluable, SourceFrame

_COMPREHENSIVE_3D_SR = "1.2.840.10008.5.1.4.1.1.88.34"
_IMAGE_LIBRARY_POSITION = -1
"""Before Imaging Measurements, the last container of the root (TID 1500, rows 6 and 10)."""


def render_findings_report(rendering: Rendering, outcome: Findings) -> RenderedObject:
    """Return the report of the label hierarchy's answers."""
    image = _stand_in(rendering, outcome.frames[0]) if len(outcome.frames) == 1 else None
    content = _content(rendering, finding_groups(rendering, outcome, image))
    _add_image_library(rendering, outcome, content)
    return _document(rendering, "sr-findings", content, _instances(rendering, _uids(outcome.frames)))


def render_measurement_report(rendering: Rendering, outcome: Findings, segmentation: RenderedObject) -> RenderedObject:
    """Return the report of the segments' measurements; each group refers to its segment."""
    groups: Sequence[Group]
    if len(outcome.frames) == 1:
        image = _stand_in(rendering, outcome.frames[0])
        groups = planar_groups(rendering, outcome, segmentation.dataset, image)
    else:
        groups = volumetric_groups(rendering, outcome, segmentation.dataset)
    content = _content(rendering, groups)
    _add_image_library(rendering, outcome, content)
    evidence = [*_instances(rendering, _uids(outcome.frames)), segmentation.reference]
    return _document(rendering, "sr-measurements", content, evidence)


def render_not_evaluable_report(rendering: Rendering, outcome: NotEvaluable) -> RenderedObject:
    """Return the report that says that the study was not evaluated, and why."""
    content = _content(rendering, not_evaluable_group(rendering, outcome))
    uids = list(rendering.source.images) or [str(rendering.source.study.SOPInstanceUID)]
    return _document(rendering, "sr-findings", content, _instances(rendering, uids))


def _content(rendering: Rendering, groups: Sequence[Group]) -> hd.sr.MeasurementReport:
    return hd.sr.MeasurementReport(
        observation_context=observer(rendering.algorithm),
        procedure_reported=concept(procedure_reported(rendering.source.study)),
        imaging_measurements=groups,
        title=concept(rendering.options.sr_title),
    )


def _add_image_library(rendering: Rendering, outcome: Findings, content: hd.sr.MeasurementReport) -> None:
    planes = planes_with_findings(outcome, rendering.options.image_library_limit)
    one_per_instance = {outcome.frames[k].sop_instance_uid: outcome.frames[k] for k in planes}
    if one_per_instance:
        images = [_stand_in(rendering, frame) for frame in one_per_instance.values()]
        content[0].ContentSequence.insert(
            len(content[0].ContentSequence) + _IMAGE_LIBRARY_POSITION, image_library(images)
        )


def _document(
    rendering: Rendering, kind: str, content: hd.sr.MeasurementReport, evidence: Sequence[ObjectReference]
) -> RenderedObject:
    reference = rendering.reference(kind, _COMPREHENSIVE_3D_SR)
    algorithm = rendering.algorithm
    dataset = SOPClass(
        study_instance_uid=reference.study_instance_uid,
        series_instance_uid=reference.series_instance_uid,
        series_number=rendering.series_number(kind),
        sop_instance_uid=reference.sop_instance_uid,
        sop_class_uid=_COMPREHENSIVE_3D_SR,
        instance_number=1,
        modality="SR",
        transfer_syntax_uid=ExplicitVRLittleEndian,
        manufacturer=algorithm.manufacturer,
        manufacturer_model_name=algorithm.name,
        software_versions=algorithm.version,
        device_serial_number=algorithm.weights_digest,
        series_description=own_text(rendering, f"{algorithm.name} {kind.removeprefix('sr-')}")[:64],
    )
    # SR Document General Module (PS3.3 C.17.2). highdicom's Comprehensive3DSR would write the same, after copying the
    # tree and looking in it for evidence that we know.
    dataset.CompletionFlag = "COMPLETE"
    dataset.VerificationFlag = "UNVERIFIED"
    dataset.PreliminaryFlag = "PRELIMINARY"
    dataset.PerformedProcedureCodeSequence = []
    dataset.ReferencedPerformedProcedureStepSequence = []
    dataset.update(content[0])
    dataset.CurrentRequestedProcedureEvidenceSequence = by_series(evidence)
    predecessors = [old for old in rendering.assignment.replaces if old.kind.startswith("sr-")]
    if predecessors:
        dataset.PredecessorDocumentsSequence = by_series(predecessors)
    requests = referenced_requests(rendering.source.study)
    if requests:
        dataset.ReferencedRequestSequence = requests
    return finish(rendering, reference, dataset)


def _stand_in(rendering: Rendering, frame: SourceFrame) -> Dataset:
    return stand_in(rendering.source.header(frame), frame)


def _uids(frames: Iterable[SourceFrame]) -> list[str]:
    return list(dict.fromkeys(frame.sop_instance_uid for frame in frames))


def _instances(rendering: Rendering, uids: Iterable[str]) -> list[ObjectReference]:
    """Return references to source instances."""
    study = rendering.source.study
    headers = [rendering.source.images.get(uid, study) for uid in uids]
    return [
        ObjectReference(
            kind="source",
            study_instance_uid=str(header.StudyInstanceUID),
            series_instance_uid=str(header.SeriesInstanceUID),
            sop_class_uid=str(header.SOPClassUID),
            sop_instance_uid=str(header.SOPInstanceUID),
        )
        for header in headers
    ]
