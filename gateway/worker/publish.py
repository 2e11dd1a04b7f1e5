"""Outcomes -> result files: DICOM objects, the variants that destinations want, pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

from gateway.config import Destination
from gateway.report import RenderedObject, RenderOptions
from gateway.report.assignment import Assignment
from gateway.report.document import RenderDocuments, Told
from gateway.report.order import ImagingOrder, read_order
from gateway.store.results import DICOM, NewArtefact
from gateway.variant import variant_name
from gateway.worker.files import WrittenFile, make_folder, write_result
from gateway.worker.load import LoadedStudy, StudySources
from gateway.worker.model import Renderers
from inference.findings import Code, Findings, Outcome

PNG = "image/png"
_SR_TITLES = {
    "imaging-measurement-report": Code("126000", "DCM", "Imaging Measurement Report"),
    "oncology-measurement-report": Code("126001", "DCM", "Oncology Measurement Report"),
}
"""CID 7021; the second is the one that viewers show as text where they cannot show the first."""
_QUERIED_TEXTS = {
    "modality": "Modality",
    "series_description": "SeriesDescription",
    "series_date": "SeriesDate",
    "series_time": "SeriesTime",
}
_QUERIED_NUMBERS = {
    "series_number": "SeriesNumber",
    "instance_number": "InstanceNumber",
    "number_of_frames": "NumberOfFrames",
    "rows": "Rows",
    "columns": "Columns",
}


@dataclass(frozen=True, slots=True, eq=False)
class Papers:
    """What was written for people."""

    artefacts: tuple[NewArtefact, ...]
    """Pictures and documents."""
    pictures: tuple[Mapping[str, bytes], ...]
    """For each outcome its PNG pictures by name."""
    order: ImagingOrder
    """What the images say of order and institution."""


class Publisher:
    """Renders the outcomes of one job and writes the files, which lie synced on disk when a call returns.

    Parameters
    ----------
    data_dir
        The data folder.
    renderers
        What renders.
    destinations
        Those of the job, for the variants that they want.
    """

    def __init__(self, data_dir: Path, renderers: Renderers, destinations: Sequence[Destination]) -> None:
        self._data_dir = data_dir
        self._renderers = renderers
        self._variants = {variant_name(one): _options_for(one) for one in destinations if variant_name(one)}

    def objects(
        self, assignment: Assignment, outcomes: Sequence[Outcome], sources: StudySources
    ) -> tuple[NewArtefact, ...]:
        """Write the DICOM objects, which a PACS waits for."""
        folder = make_folder(self._data_dir, str(assignment.job_id))
        objects = (
            self._dicom(folder, assignment, ordinal, outcome, sources.of(outcome.series_instance_uid))
            for ordinal, outcome in enumerate(outcomes)
        )
        return tuple(chain.from_iterable(objects))

    def papers(
        self, assignment: Assignment, outcomes: Sequence[Outcome], loaded: LoadedStudy, sources: StudySources
    ) -> Papers:
        """Write pictures and documents, for people."""
        folder = make_folder(self._data_dir, str(assignment.job_id))
        uid = assignment.study_instance_uid
        pictures: list[Mapping[str, bytes]] = []
        artefacts: list[NewArtefact] = []
        for ordinal, outcome in enumerate(outcomes):
            files = sources.of(outcome.series_instance_uid)
            drawn = self._renderers.pictures(outcome, files) if isinstance(outcome, Findings) and outcome.frames else {}
            pictures.append(drawn)
            artefacts += [
                file_artefact(folder, uid, f"picture-{name}", ordinal, PNG, content) for name, content in drawn.items()
            ]
        series = next((each.series_instance_uid for each in outcomes if each.series_instance_uid), None)
        order = read_order(sources.of(series))
        if self._renderers.documents is not None:
            told = Told(
                job_id=str(assignment.job_id),
                revision=assignment.revision,
                study=loaded.study,
                outcomes=outcomes,
                pictures=pictures,
                made_at=assignment.rendered_at,
                order=order,
                earlier=loaded.last_word,
            )
            artefacts += write_documents(folder, told, self._renderers.documents)
        return Papers(tuple(artefacts), tuple(pictures), order)

    def _dicom(
        self, folder: Path, assignment: Assignment, ordinal: int, outcome: Outcome, sources: Sequence[Path]
    ) -> list[NewArtefact]:
        """Write the default rendering, and of each variant the objects whose bytes differ from it."""
        artefacts: list[NewArtefact] = []
        standard: set[str] = set()
        for variant, options in {"": RenderOptions(), **self._variants}.items():
            for rendered in self._renderers.dicom(outcome, assignment, sources, ordinal=ordinal, options=options):
                kind = rendered.reference.kind
                written = write_result(folder, kind, ordinal, DICOM, rendered.content)
                if variant == "":
                    standard.add(written.digest)
                elif written.digest in standard:
                    continue
                artefacts.append(_object(rendered, ordinal, variant, written))
        return artefacts


def _options_for(destination: Destination) -> RenderOptions:
    return RenderOptions(sr_title=_SR_TITLES[destination.sr_title], seg_encoding=destination.seg_encoding)


def _object(rendered: RenderedObject, ordinal: int, variant: str, written: WrittenFile) -> NewArtefact:
    reference = rendered.reference
    return NewArtefact(
        kind=reference.kind,
        ordinal=ordinal,
        variant=variant,
        media_type=DICOM,
        study_instance_uid=reference.study_instance_uid,
        series_instance_uid=reference.series_instance_uid,
        sop_class_uid=reference.sop_class_uid,
        sop_instance_uid=reference.sop_instance_uid,
        path=written.path,
        digest=written.digest,
        size_bytes=written.size_bytes,
        **queried(rendered.dataset),
    )


def queried(dataset: Dataset) -> dict[str, Any]:
    """Return what queries return of a result, as it stands in the object."""
    texts = {name: dataset.get(keyword) for name, keyword in _QUERIED_TEXTS.items()}
    numbers = {name: dataset.get(keyword) for name, keyword in _QUERIED_NUMBERS.items()}
    return {
        **{name: None if value is None else str(value) for name, value in texts.items()},
        **{name: None if value is None else int(value) for name, value in numbers.items()},
    }


def write_documents(folder: Path, told: Told, render: RenderDocuments) -> list[NewArtefact]:
    """Render and write the documents of a job, which are of the whole job: their ordinal is 0."""
    uid = told.study.study_instance_uid
    return [
        file_artefact(folder, uid, kind, 0, media_type, content) for kind, (media_type, content) in render(told).items()
    ]


def file_artefact(  # noqa: PLR0913, PLR0917 # a file and its row
    folder: Path, study_instance_uid: str, kind: str, ordinal: int, media_type: str, content: bytes
) -> NewArtefact:
    """Write a file that is no DICOM object; return its row."""
    written = write_result(folder, kind, ordinal, media_type, content)
    return NewArtefact(
        kind=kind,
        ordinal=ordinal,
        variant="",
        media_type=media_type,
        study_instance_uid=study_instance_uid,
        series_instance_uid=None,
        sop_class_uid=None,
        sop_instance_uid=None,
        path=written.path,
        digest=written.digest,
        size_bytes=written.size_bytes,
    )
