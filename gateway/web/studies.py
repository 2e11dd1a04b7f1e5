"""What a study's page shows: read from the database, ready for a template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from gateway.job import State
from gateway.store.deliveries import DeliveryFilter, DeliveryRow, list_deliveries
from gateway.store.demographics import DemographicIssue, issue_of_study
from gateway.store.results import DICOM
from gateway.store.studies import SeriesRow, StudyRow, get_study, list_series
from gateway.store.tables import artefact, fhir_resource, finding, job, study
from gateway.store.worklist import WorklistStudy, list_priors
from gateway.web.language import Language
from gateway.web.results import label_set_text, outcomes, uncertainty, withheld_text, work_state
from gateway.web.trend import Key, Trend, measurement_key, trend, values_of
from gateway.web.worklist import StudyLine, study_lines

_MOST_JOBS = 200
_MOST_PRIORS = 20
_PNG = "image/png"


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture of a job's result."""

    artefact_id: int
    name: str
    """'overlay' or 'heatmap-<class>'."""
    revision: int


@dataclass(frozen=True, slots=True)
class DicomObject:
    """A result object of a job."""

    kind: str
    series_instance_uid: str
    sop_instance_uid: str


@dataclass(frozen=True, slots=True)
class Measured:
    """A measurement with those before it."""

    quantity: str
    value: float | None
    unit: str
    trend: Trend | None


@dataclass(frozen=True, slots=True)
class ShownSegment:
    """A segment."""

    number: int
    label: str
    measurements: Sequence[Measured]


@dataclass(frozen=True, slots=True)
class ShownFinding:
    """The answer of one level with its alternatives."""

    id: str
    question: str
    site: str
    answer: str
    uncertainty: float | None
    label_set: str
    """The classes that hold the true one, in words; '' where the model does not say."""
    classes: Sequence[Mapping[str, Any]]
    """As in the summary: name, code, probability."""
    is_positive: bool


@dataclass(frozen=True, slots=True)
class ShownOutcome:
    """What a job says of one series."""

    ordinal: int
    is_evaluable: bool
    heading: str
    """Why it is not evaluable, in short."""
    detail: str
    findings: Sequence[ShownFinding] = ()
    segments: Sequence[ShownSegment] = ()


@dataclass(frozen=True, slots=True)
class Revision:
    """A job of the study."""

    id: str
    bundle: str
    revision: int
    state: str
    job: sa.Row[Any]
    report_id: str | None
    """Of the FHIR DiagnosticReport; all revisions have the same."""


@dataclass(frozen=True, slots=True)
class BundleResult:
    """What one bundle says of the study."""

    bundle: str
    newest: Revision
    shown: Revision
    """The newest that is done; where none is, the newest."""
    outcomes: Sequence[ShownOutcome]
    pictures: Sequence[Picture]
    objects: Sequence[DicomObject]


@dataclass(frozen=True, slots=True)
class StudyPage:
    """A study with all that is known of it."""

    line: StudyLine
    series: Sequence[SeriesRow]
    results: Sequence[BundleResult]
    history: Sequence[Revision]
    deliveries: Sequence[DeliveryRow]
    priors: Sequence[StudyLine]
    issue: DemographicIssue | None = None
    """Where somebody says otherwise of the patient than the images."""

    @property
    def study(self) -> StudyRow:
        """The study itself."""
        return self.line.study


def study_page(connection: Connection, study_instance_uid: str, language: Language) -> StudyPage:
    """Return a study; NotFoundError where there is none."""
    row = get_study(connection, study_instance_uid)
    suspicion = connection.scalar(sa.select(study.c.suspicion).where(study.c.study_instance_uid == study_instance_uid))
    history = _history(connection, study_instance_uid)
    priors = [WorklistStudy(each, None) for each in list_priors(connection, study_instance_uid, _MOST_PRIORS)]
    before = _values_before(connection, [each.study for each in priors])
    return StudyPage(
        line=study_lines(connection, language, [WorklistStudy(row, suspicion)])[0],
        series=list_series(connection, study_instance_uid),
        results=_results(connection, language, row, history, before),
        history=history,
        deliveries=list_deliveries(connection, DeliveryFilter(study_instance_uid=study_instance_uid), limit=_MOST_JOBS),
        priors=study_lines(connection, language, priors),
        issue=issue_of_study(connection, study_instance_uid),
    )


def picture_path(connection: Connection, artefact_id: int) -> str | None:
    """Return where a picture lies, relative to the data folder; None where there is no such picture."""
    query = sa.select(artefact.c.path).where(artefact.c.id == artefact_id, artefact.c.media_type == _PNG)
    return connection.scalar(query)


def _history(connection: Connection, study_instance_uid: str) -> list[Revision]:
    """Return the study's jobs, by bundle, the newest first."""
    query = sa.select(job).where(job.c.study_instance_uid == study_instance_uid)
    rows = connection.execute(query.order_by(job.c.bundle, job.c.revision.desc()).limit(_MOST_JOBS)).all()
    reports = _report_ids(connection, study_instance_uid, {row.id: row.bundle for row in rows})
    return [
        Revision(
            row.id,
            row.bundle,
            row.revision,
            work_state(row.state, row.reason, row.verification),
            row,
            reports.get(row.bundle),
        )
        for row in rows
    ]


def _report_ids(connection: Connection, study_instance_uid: str, bundles: Mapping[str, str]) -> dict[str, str]:
    """Return the id of the DiagnosticReport of each bundle.

    Parameters
    ----------
    bundles
        Job's id -> its bundle.
    """
    query = sa.select(fhir_resource.c.job_id, fhir_resource.c.resource_id).where(
        fhir_resource.c.study_instance_uid == study_instance_uid, fhir_resource.c.type == "DiagnosticReport"
    )
    rows = connection.execute(query.order_by(fhir_resource.c.id))
    return {bundles[row.job_id]: row.resource_id for row in rows if row.job_id in bundles}


def _results(
    connection: Connection,
    language: Language,
    row: StudyRow,
    history: Sequence[Revision],
    before: Mapping[str, Sequence[tuple[str, Mapping[Key, float]]]],
) -> list[BundleResult]:
    by_bundle: dict[str, list[Revision]] = {}
    for each in history:
        by_bundle.setdefault(each.bundle, []).append(each)
    pictures, objects = _artefacts(connection, row.study_instance_uid, {each.id: each for each in history})
    positive = _positive(connection, row.study_instance_uid)
    results = []
    for bundle, revisions in by_bundle.items():
        done = [each for each in revisions if each.job.state == State.DONE]
        shown = done[0] if done else revisions[0]
        seen = _Seen(language, row.study_date, before.get(bundle, ()), positive.get(shown.id, frozenset()))
        # A revision that a person made may bring no pictures of its own: those of the one before it stand in.
        pictured = next((each.id for each in done if each.id in pictures), "")
        results.append(
            BundleResult(
                bundle=bundle,
                newest=revisions[0],
                shown=shown,
                outcomes=[seen.outcome(ordinal, each) for ordinal, each in enumerate(outcomes(shown.job.summary))],
                pictures=pictures.get(pictured, ()),
                objects=sorted(objects.get(shown.id, ()), key=lambda one: (not one.kind.startswith("sr-"), one.kind)),
            )
        )
    return results


@dataclass(frozen=True, slots=True)
class _Seen:
    """Puts a summary's outcomes into the words and numbers of a page."""

    language: Language
    study_date: str
    before: Sequence[tuple[str, Mapping[Key, float]]]
    positive: frozenset[tuple[int, str]]

    def outcome(self, ordinal: int, outcome: Mapping[str, Any]) -> ShownOutcome:
        if not outcome.get("evaluable"):
            heading, detail = withheld_text(self.language, outcome), str(outcome.get("reason", ""))
            return ShownOutcome(ordinal, False, heading, "" if detail == heading else detail)
        return ShownOutcome(
            ordinal,
            True,
            "",
            "",
            [self._finding(ordinal, each) for each in outcome.get("findings", [])],
            [self._segment(each) for each in outcome.get("segments", [])],
        )

    def _finding(self, ordinal: int, each: Mapping[str, Any]) -> ShownFinding:
        return ShownFinding(
            id=each["id"],
            question=each["question"]["meaning"],
            site=each["site"]["meaning"] if each.get("site") else "",
            answer=each["answer"],
            uncertainty=uncertainty(each),
            label_set=label_set_text(self.language, each),
            classes=each.get("alternatives", []),
            is_positive=(ordinal, each["id"]) in self.positive,
        )

    def _segment(self, segment: Mapping[str, Any]) -> ShownSegment:
        return ShownSegment(
            number=segment["number"],
            label=segment["label"],
            measurements=[
                Measured(
                    each["quantity"]["meaning"],
                    each["value"],
                    each["unit"],
                    trend(self.study_date, each["value"], measurement_key(segment, each), self.before),
                )
                for each in segment.get("measurements", [])
            ],
        )


def _positive(connection: Connection, study_instance_uid: str) -> dict[str, frozenset[tuple[int, str]]]:
    query = sa.select(finding.c.job_id, finding.c.ordinal, finding.c.tracking_id)
    of_study = (finding.c.study_instance_uid == study_instance_uid, finding.c.is_positive)
    found: dict[str, set[tuple[int, str]]] = {}
    for row in connection.execute(query.where(*of_study)):
        found.setdefault(row.job_id, set()).add((row.ordinal, row.tracking_id))
    return {job_id: frozenset(each) for job_id, each in found.items()}


def _artefacts(
    connection: Connection, study_instance_uid: str, revisions: Mapping[str, Revision]
) -> tuple[dict[str, list[Picture]], dict[str, list[DicomObject]]]:
    query = sa.select(artefact).where(artefact.c.study_instance_uid == study_instance_uid, artefact.c.variant == "")
    # 'picture-overlay' before 'picture-heatmap-…': the overlay is the key image.
    ordered = query.order_by(artefact.c.ordinal, artefact.c.kind.desc(), artefact.c.id)
    pictures: dict[str, list[Picture]] = {}
    objects: dict[str, list[DicomObject]] = {}
    for row in connection.execute(ordered):
        if row.job_id not in revisions:
            continue
        if row.media_type == _PNG:
            name = row.kind.removeprefix("picture-")
            pictures.setdefault(row.job_id, []).append(Picture(row.id, name, revisions[row.job_id].revision))
        elif row.media_type == DICOM and row.sop_instance_uid and row.series_instance_uid:
            one = DicomObject(row.kind, row.series_instance_uid, row.sop_instance_uid)
            objects.setdefault(row.job_id, []).append(one)
    return pictures, objects


def _values_before(
    connection: Connection, priors: Sequence[StudyRow]
) -> dict[str, list[tuple[str, Mapping[Key, float]]]]:
    """Return by bundle the values of each earlier study, the earliest first; withdrawn results are left out."""
    uids = [each.study_instance_uid for each in priors]
    query = sa.select(job).where(job.c.study_instance_uid.in_(uids), job.c.state == State.DONE)
    newest: dict[tuple[str, str], sa.Row[Any]] = {}
    for row in connection.execute(query.order_by(job.c.revision)):
        newest[row.study_instance_uid, row.bundle] = row
    values: dict[str, list[tuple[str, Mapping[Key, float]]]] = {}
    for each in reversed(priors):
        for (uid, bundle), row in newest.items():
            if uid == each.study_instance_uid and work_state(row.state, row.reason, row.verification) != "rejected":
                values.setdefault(bundle, []).append((each.study_date, dict(values_of(row.summary))))
    return values
