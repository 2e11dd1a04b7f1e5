"""A person's word becomes a new revision of a result: files first, then all rows in one transaction."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import structlog
from sqlalchemy.engine import Connection

from gateway.errors import ConflictError
from gateway.job import Claim
from gateway.report.assignment import Assignment
from gateway.report.document import RenderDocuments, Told
from gateway.report.fhir_input import FhirInput, RenderFhir
from gateway.report.order import ImagingOrder, read_order
from gateway.report.rejection_note import QUALITY
from gateway.report.summary import read_algorithm, read_outcomes, summarise
from gateway.store import Store, verifications
from gateway.store.deliveries import create_deliveries
from gateway.store.findings import record_findings
from gateway.store.jobs import JobRow
from gateway.store.rejections import Rejected, Rejection, reject
from gateway.store.results import NewArtefact, add_artefacts, list_artefacts, write_resources
from gateway.store.studies import StudyRow, get_study, list_instances, list_series, lock_study
from gateway.store.verifications import Standing
from gateway.verification.corrections import Changes, correct, told
from gateway.verification.objects import Basis, Objects, shown_pictures, with_documents, write_objects
from gateway.verification.verdict import Verdict, Verification, read_verification
from inference.findings import Outcome

log = structlog.get_logger()

_SAID = {"accept": "accepted", "correct": "corrected", "reject": "rejected"}


@dataclass(frozen=True, slots=True)
class Verified:
    """What came of it."""

    job_id: str
    """Of the new revision."""
    study_instance_uid: str
    is_new: bool
    """False where the same was said before: a form sent twice."""


@dataclass(frozen=True, slots=True, eq=False)
class _Plan:
    """One verification on its way."""

    standing: Standing
    artefacts: Sequence[NewArtefact]
    outcomes: tuple[Outcome, ...]
    changes: tuple[Changes, ...]
    verification: Verification
    job_id: str
    revision: int

    @property
    def is_rejection(self) -> bool:
        return self.verification.action == "reject"

    def told(self, basis: Basis, objects: Objects, order: ImagingOrder, study: StudyRow) -> Told:
        """Return what the documents of the new revision tell."""
        words = [read_verification(row.verification or {}) for row in self.standing.verified]
        corrected = {(each["ordinal"], each["id"]) for word in [*words, self.verification] for each in _answers(word)}
        return Told(
            job_id=self.job_id,
            revision=self.revision,
            study=study,
            outcomes=self.outcomes,
            pictures=shown_pictures(basis, objects, self.changes),
            made_at=self.verification.verified_at,
            order=order,
            now=self.verification,
            corrected=frozenset(corrected),
        )


class Verifier:
    """Writes down what persons say of results.

    Parameters
    ----------
    store
        Database and data folder.
    render_fhir
        Finished jobs -> FHIR resources.
    now
        The clock.
    render_documents
        HTML and PDF for people; None: none are written.
    """

    def __init__(
        self,
        store: Store,
        render_fhir: RenderFhir,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        render_documents: RenderDocuments | None = None,
    ) -> None:
        self._store = store
        self._render_fhir = render_fhir
        self._render_documents = render_documents
        self._now = now

    def verify(self, verdict: Verdict) -> Verified:
        """Make the revision; the same verdict, given again, makes no second one.

        Raises
        ------
        NotFoundError
            There is no such job.
        ConflictError
            The results are not the newest of their study and bundle, or about to be replaced, or rejected.
        VerdictError
            The corrections do not fit the results.
        """
        began = time.monotonic()
        with self._store.read() as connection:
            plan = self._plan(connection, verdict)
            if isinstance(plan, Verified):
                return plan
            basis = _basis(connection, plan, self._store)
            study = get_study(connection, plan.standing.newest.study_instance_uid)
        objects = write_objects(basis, plan.changes)
        order = read_order([path for paths in basis.sources for path in paths])
        if self._render_documents is not None:
            objects = with_documents(basis, objects, plan.told(basis, objects, order, study), self._render_documents)
        self._store.files.keep(each.path for each in objects.artefacts)
        with self._store.write() as connection:
            lock_study(connection, plan.standing.newest.study_instance_uid)
            # Under the lock: another person, or a worker, may have been faster.
            present = self._plan(connection, verdict)
            if isinstance(present, Verified):
                return present
            if present.revision != plan.revision:
                raise ConflictError("other results came meanwhile: look at the study again")
            self._commit(connection, plan, objects, order)
        took_s = round(time.monotonic() - began, 3)
        log.info("verification.done", job_id=plan.job_id, action=verdict.action, took_s=took_s)
        return Verified(plan.job_id, plan.standing.newest.study_instance_uid, is_new=True)

    def _plan(self, connection: Connection, verdict: Verdict) -> _Plan | Verified:
        found = verifications.standing_of(connection, verdict.job_id)
        newest = found.newest
        for row in found.verified:
            if (row.verification or {}).get("digest") == verdict.digest:
                return Verified(row.id, row.study_instance_uid, is_new=False)
        _require_newest(connection, newest, verdict)
        outcomes, changes = correct(_outcomes(newest), verdict)
        verification = Verification(
            action=verdict.action,
            observer=verdict.observer.name,
            organisation=verdict.observer.organisation,
            comment=verdict.comment,
            verified_at=self._now(),
            verified_job_id=newest.id,
            digest=verdict.digest,
            corrections=tuple(told(changes)),
        )
        return _Plan(
            standing=found,
            artefacts=verifications.standing_artefacts(connection, found),
            outcomes=outcomes,
            changes=changes,
            verification=verification,
            # The same verdict has the same id: what a crash left behind is written over, not added to.
            job_id=str(uuid.uuid5(uuid.UUID(newest.id), verdict.digest)),
            revision=verifications.next_revision(connection, newest.study_instance_uid, newest.bundle),
        )

    def _commit(self, connection: Connection, plan: _Plan, objects: Objects, order: ImagingOrder) -> None:
        """Write all rows, in the order in which `commit_results` does."""
        newest, now = plan.standing.newest, plan.verification.verified_at
        summary = _summary(plan)
        verifications.add_verified_job(
            connection,
            job_id=plan.job_id,
            predecessor=newest,
            revision=plan.revision,
            verification=plan.verification.as_json(),
            summary=summary,
            now=now,
        )
        add_artefacts(connection, plan.job_id, objects.artefacts, now)
        resources = self._render_fhir(connection, _fhir_input(connection, plan, objects, order))
        write_resources(connection, resources, now, job_id=plan.job_id)
        if plan.is_rejection:
            earlier = [row.id for row in plan.standing.jobs]
            verifications.cancel_deliveries(connection, earlier, now, "rejected before it was sent")
        create_deliveries(connection, plan.job_id, newest.destinations, now)
        record_findings(
            connection,
            study_instance_uid=newest.study_instance_uid,
            bundle=newest.bundle,
            job_id=plan.job_id,
            summary=summary,
            is_rejected=plan.is_rejection,
        )
        _hide(connection, objects, now)


def _answers(word: Verification) -> list[Mapping[str, Any]]:
    return [each for each in word.corrections if "answer" in each]


def _require_newest(connection: Connection, newest: JobRow, verdict: Verdict) -> None:
    """Raise ConflictError where something else holds by now than what the person looked at."""
    if newest.id != verdict.job_id:
        if newest.verification is None:
            raise ConflictError(f"these results were replaced by revision {newest.revision}: look at that one")
        word = read_verification(newest.verification)
        at = f"{word.verified_at:%Y-%m-%d %H:%M} UTC"
        raise ConflictError(f"{word.who.display} {_SAID[word.action]} this result on {at}: look at it again")
    if newest.verification is not None and newest.verification["action"] == "reject":
        raise ConflictError("this result was rejected: reprocess the study for a new one")
    coming = verifications.unfinished_job(connection, newest)
    if coming is not None:
        raise ConflictError(
            f"revision {coming.revision} is {coming.state} and will replace this result: wait for it, or cancel it"
        )


def _outcomes(row: JobRow) -> tuple[Outcome, ...]:
    return read_outcomes(row.summary or {"outcomes": ()}, read_algorithm(row.algorithm or {}))


def _basis(connection: Connection, plan: _Plan, store: Store) -> Basis:
    study_uid = plan.standing.newest.study_instance_uid
    series = [each.series_instance_uid for each in plan.outcomes]
    store.files.bring(each.path for each in plan.artefacts)
    return Basis(
        data_dir=store.data_dir,
        artefacts=plan.artefacts,
        revisions=[list_artefacts(connection, row.id) for row in plan.standing.jobs],
        origin_job_id=uuid.UUID(plan.standing.origin.id),
        origin_revision=plan.standing.origin.revision,
        job_id=uuid.UUID(plan.job_id),
        revision=plan.revision,
        verification=plan.verification,
        outcomes=plan.outcomes,
        sources=[
            [store.files.local(row.path) for row in (list_instances(connection, study_uid, uid) if uid else ())]
            for uid in series
        ],
    )


def _summary(plan: _Plan) -> dict[str, Any]:
    """Return the summary as the person left it; a corrected finding tells the algorithm's answer as `was`."""
    before: Mapping[str, Any] = plan.standing.newest.summary or {}
    was = {
        (ordinal, each["id"]): each["was"]
        for ordinal, outcome in enumerate(before.get("outcomes", ()))
        for each in outcome.get("findings", ())
        if "was" in each
    }
    for ordinal, change in enumerate(plan.changes):
        for answer in change.answers:
            was.setdefault((ordinal, answer.finding.tracking_id), answer.was.name)
    summary = summarise(plan.outcomes, was)
    for ordinal, outcome in enumerate(summary["outcomes"]):
        for each in outcome.get("findings", ()):
            if (ordinal, each["id"]) in was:
                each["was"] = was[ordinal, each["id"]]
    summary["text"] = f"{_SAID[plan.verification.action]}: {summary['text']}"
    return summary


def _fhir_input(connection: Connection, plan: _Plan, objects: Objects, order: ImagingOrder) -> FhirInput:
    newest, origin = plan.standing.newest, plan.standing.origin
    study = get_study(connection, newest.study_instance_uid)
    now = plan.verification.verified_at
    claim = Claim(
        job_id=plan.job_id,
        study_instance_uid=newest.study_instance_uid,
        study_revision=newest.study_revision,
        bundle=newest.bundle,
        revision=plan.revision,
        priority=newest.priority,
        destinations=tuple(newest.destinations),
        attempt=1,
        owner=verifications.REQUESTED_BY,
        lease_expires_at=now,
    )
    assignment = Assignment(uuid.UUID(origin.id), origin.revision, study.study_instance_uid, now)
    return FhirInput(
        job=claim,
        assignment=assignment,
        study=study,
        series=list_series(connection, study.study_instance_uid),
        instances=list_instances(connection, study.study_instance_uid),
        outcomes=plan.outcomes,
        artefacts=objects.artefacts,
        pictures=tuple({} for _ in plan.outcomes),
        now=now,
        replaces=True,
        order=order,
        verification=plan.verification,
    )


def _hide(connection: Connection, objects: Objects, now: datetime) -> None:
    """Let queries here show what is withdrawn no longer, as a PACS does by the note."""
    if not objects.withdrawn:
        return
    note = next(each for each in objects.artefacts if each.kind == verifications.NOTE)
    rejected = [
        Rejected(each.study_instance_uid, each.series_instance_uid, each.sop_instance_uid) for each in objects.withdrawn
    ]
    reject(connection, Rejection(QUALITY.value, rejected, note.sop_instance_uid or "", "web"), now)
