"""Hierarchical SOP instance references (PS3.3 table C.17-3): how SR documents and key objects name other objects."""

from __future__ import annotations

from collections.abc import Iterable

from pydicom.dataset import Dataset

from gateway.report.assignment import ObjectReference


def by_series(references: Iterable[ObjectReference]) -> list[Dataset]:
    """Return the references as the items of an evidence sequence, one per study."""
    studies: dict[str, dict[str, list[Dataset]]] = {}
    for reference in references:
        instance = Dataset()
        instance.ReferencedSOPClassUID = reference.sop_class_uid
        instance.ReferencedSOPInstanceUID = reference.sop_instance_uid
        series = studies.setdefault(reference.study_instance_uid, {})
        series.setdefault(reference.series_instance_uid, []).append(instance)
    return [_study_item(uid, series) for uid, series in studies.items()]


def _study_item(study_uid: str, series: dict[str, list[Dataset]]) -> Dataset:
    study = Dataset()
    study.StudyInstanceUID = study_uid
    items = []
    for uid, instances in series.items():
        item = Dataset()
        item.SeriesInstanceUID = uid
        item.ReferencedSOPSequence = instances
        items.append(item)
    study.ReferencedSeriesSequence = items
    return study
