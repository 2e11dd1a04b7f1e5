"""The study of a job, as it stands when the job is claimed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from sqlalchemy.engine import Connection

from gateway.decoding import MALFORMED
from gateway.errors import NotFoundError
from gateway.job import Claim
from gateway.report.assignment import ObjectReference
from gateway.report.source import SourceFiles
from gateway.report.summary import read_algorithm
from gateway.store.jobs import get_job
from gateway.store.results import DICOM, NewArtefact, list_artefacts, predecessor
from gateway.store.studies import InstanceRow, SeriesRow, StudyRow, get_study, list_instances, list_series
from gateway.store.verifications import words_before
from gateway.verification.verdict import Verification, read_verification
from gateway.worker.model import Model
from inference.findings import Algorithm


@dataclass(frozen=True, slots=True, eq=False)
class Told:
    """What released objects say."""

    algorithm: Algorithm
    summary: Mapping[str, Any]
    """As `gateway.report.summary` reads it."""


@dataclass(frozen=True, slots=True, eq=False)
class LoadedStudy:
    """A study's rows, and the results that the job replaces."""

    study: StudyRow
    series: Sequence[SeriesRow]
    instances: Sequence[InstanceRow]
    """Current ones, by series, instance number and UID."""
    is_replacement: bool
    """Whether an earlier revision of this study and bundle is done."""
    replaces: tuple[ObjectReference, ...]
    """Its DICOM objects."""
    last_word: Verification | None = None
    """What a person said last of an earlier revision."""
    released: Sequence[NewArtefact] = ()
    """Objects of this very job that an earlier try of it brought out."""
    told: Told | None = None
    """What they say; None where none are out."""

    def wanted_series(self, model: Model) -> list[str]:
        """Return the UIDs of the series that a bundle is meant for; our own results that came back are none."""
        return [
            one.series_instance_uid
            for one in self.series
            if not one.is_own and model.wants(one.modality, one.body_part, one.series_description)
        ]

    def files(self, data_dir: Path, series_instance_uid: str) -> list[Path]:
        """Return the files of a series."""
        return [data_dir / one.path for one in self.instances if one.series_instance_uid == series_instance_uid]

    def sources(self, data_dir: Path, series_instance_uid: str | None) -> list[Path]:
        """Return the files that a result refers to: those of its series, else of the study, our own results last."""
        if series_instance_uid is not None:
            return self.files(data_dir, series_instance_uid)
        order = sorted(self.series, key=lambda one: one.is_own)
        return [path for one in order for path in self.files(data_dir, one.series_instance_uid)]


class StudySources:
    """The files that results refer to, their headers read once.

    Parameters
    ----------
    loaded
        The study.
    data_dir
        The data folder.
    known
        Gives the header of a file that was read before; None where none was.
    """

    def __init__(
        self, loaded: LoadedStudy, data_dir: Path, known: Callable[[Path], Dataset | None] | None = None
    ) -> None:
        self._loaded = loaded
        self._data_dir = data_dir
        self._known = known or _unknown
        self._files: dict[str | None, SourceFiles] = {}

    def of(self, series_instance_uid: str | None) -> SourceFiles:
        """Return the files of a series, or of the whole study."""
        if series_instance_uid not in self._files:
            paths = self._loaded.sources(self._data_dir, series_instance_uid)
            self._files[series_instance_uid] = SourceFiles(paths, self._known)
        return self._files[series_instance_uid]

    def read(self, series_instance_uids: Iterable[str]) -> None:
        """Read the headers now; where that cannot be, whoever needs them says so."""
        for uid in series_instance_uids:
            with contextlib.suppress(NotFoundError, *MALFORMED):
                self.of(uid).read(uid)


def _unknown(_path: Path) -> Dataset | None:
    return None


def load_study(connection: Connection, claim: Claim) -> LoadedStudy:
    """Read a job's study; NotFoundError where it is gone."""
    earlier = predecessor(connection, claim)
    artefacts = [] if earlier is None else list_artefacts(connection, earlier.job_id)
    words = words_before(connection, claim.study_instance_uid, claim.bundle, claim.revision)
    said = [read_verification(word) for word in words if word is not None]
    released = list_artefacts(connection, claim.job_id)
    return LoadedStudy(
        last_word=said[-1] if said else None,
        released=released,
        told=_told(connection, claim.job_id) if released else None,
        study=get_study(connection, claim.study_instance_uid),
        series=list_series(connection, claim.study_instance_uid),
        instances=list_instances(connection, claim.study_instance_uid),
        is_replacement=earlier is not None and earlier.is_reported,
        replaces=tuple(
            ObjectReference(
                kind=one.kind,
                study_instance_uid=one.study_instance_uid,
                series_instance_uid=one.series_instance_uid or "",
                sop_class_uid=one.sop_class_uid or "",
                sop_instance_uid=one.sop_instance_uid or "",
            )
            for one in artefacts
            if one.media_type == DICOM and one.variant == ""
        ),
    )


def _told(connection: Connection, job_id: str) -> Told:
    row = get_job(connection, job_id)
    return Told(read_algorithm(row.algorithm or {}), row.summary)
