"""The work on one job, step by step: prepare, infer, publish, release, complete, commit."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy.engine import Connection

from gateway.config import Destination
from gateway.errors import NotFoundError
from gateway.job import Claim
from gateway.report.assignment import Assignment
from gateway.report.fhir_input import FhirInput
from gateway.report.order import NO_ORDER
from gateway.report.summary import describe_algorithm, not_evaluable_reason, retold, summarise
from gateway.store import Store
from gateway.store.results import NewArtefact, commit_results, list_artefacts, release_objects
from gateway.store.studies import lock_study
from gateway.worker.ahead import Ahead
from gateway.worker.load import LoadedStudy, StudySources, load_study
from gateway.worker.model import FindModel, Inference, Model, Renderers, Together
from gateway.worker.publish import Papers, Publisher
from inference.errors import NotEvaluableError
from inference.findings import Algorithm, NotEvaluable, Outcome


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A job whose study is in memory."""

    claim: Claim
    model: Model
    loaded: LoadedStudy
    sources: StudySources
    infer: Inference


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """What a model said of a study, rendered and on disk, and not yet anyone's result."""

    assignment: Assignment
    algorithm: Algorithm
    outcomes: tuple[Outcome, ...]
    objects: tuple[NewArtefact, ...]
    """DICOM."""
    papers: Papers | None = None
    """What `complete` added."""

    @property
    def artefacts(self) -> tuple[NewArtefact, ...]:
        """All files."""
        return self.objects if self.papers is None else self.objects + self.papers.artefacts


class Execution:
    """Takes jobs through the steps; holds nothing between them.

    Parameters
    ----------
    store
        Database and data folder.
    find_model
        Gives the model of a bundle.
    renderers
        Outcomes -> DICOM, pictures, FHIR.
    destinations
        All that are configured.
    now
        The clock.
    ahead
        What was prepared while studies were still arriving; None: nothing is.
    """

    def __init__(  # noqa: PLR0913, PLR0917 # its parts
        self,
        store: Store,
        find_model: FindModel,
        renderers: Renderers,
        destinations: Sequence[Destination],
        now: Callable[[], datetime],
        ahead: Ahead | None = None,
    ) -> None:
        self._store = store
        self._find_model = find_model
        self._renderers = renderers
        self._destinations = {destination.name: destination for destination in destinations}
        self._now = now
        self._ahead = ahead
        self._device: AbstractContextManager[object] = nullcontext() if ahead is None else ahead.device

    def prepare(self, claim: Claim) -> Prepared:
        """Load the model and the study; NotFoundError where the bundle is not installed."""
        model = self._find_model(claim.bundle)
        if model is None:
            raise NotFoundError(f"bundle {claim.bundle!r} is not installed on this worker")
        with self._store.read() as connection:
            loaded = load_study(connection, claim)
        known = None if self._ahead is None else self._ahead.header
        sources = StudySources(loaded, self._store.data_dir, known)
        inference = self._inference(claim, model, loaded)
        sources.read(loaded.wanted_series(model))
        if self._ahead is not None:
            self._ahead.done(claim.study_instance_uid, claim.bundle)
        return Prepared(claim, model, loaded, sources, inference)

    def infer(self, prepared: Prepared) -> tuple[Outcome, ...]:
        """Run the model; what it withholds is an outcome too."""
        try:
            with self._device:
                return tuple(prepared.infer())
        except NotEvaluableError as error:
            return (NotEvaluable(prepared.model.algorithm, error.code, error.reason),)

    def infer_many(self, prepared: Sequence[Prepared]) -> Sequence[tuple[Outcome, ...]]:
        """Run the model of several jobs over all of them in one call; raises what goes wrong with any of them."""
        model = prepared[0].model
        if not isinstance(model, Together):
            raise TypeError(f"{model.algorithm.name} takes one job at a time")
        with self._device:
            return [tuple(outcomes) for outcomes in model.infer_many([each.infer for each in prepared])]

    def publish(self, prepared: Prepared, outcomes: tuple[Outcome, ...]) -> Made:
        """Render the DICOM objects and write their files; where an earlier try of the job brought them out, take those.

        The outcomes are then those that were told, whatever the model says now.
        """
        claim, loaded = prepared.claim, prepared.loaded
        assignment = Assignment(
            job_id=uuid.UUID(claim.job_id),
            revision=claim.revision,
            study_instance_uid=claim.study_instance_uid,
            rendered_at=self._now(),
            replaces=loaded.replaces,
            timezone_offset=loaded.study.timezone_offset or None,
        )
        self._bring(loaded, {outcome.series_instance_uid for outcome in outcomes})
        if loaded.told is not None:
            outcomes = retold(outcomes, loaded.told.algorithm, loaded.told.summary)
            return Made(assignment, loaded.told.algorithm, outcomes, tuple(loaded.released))
        objects = self._publisher(claim).objects(assignment, outcomes, prepared.sources)
        self._store.files.keep([artefact.path for artefact in objects])
        return Made(assignment, prepared.model.algorithm, outcomes, objects)

    def release(self, prepared: Prepared, made: Made) -> bool:
        """Let the objects out to their destinations, the job still running; False where the lease is lost.

        May be called again after DatabaseAwayError.
        """
        claim = prepared.claim
        with self._store.write() as connection:
            return release_objects(
                connection,
                claim,
                self._now(),
                algorithm=describe_algorithm(made.algorithm),
                summary=summarise(made.outcomes),
                artefacts=made.objects,
                deliveries=[each.name for each in self._destinations_of(claim) if not each.takes_reports],
            )

    def complete(self, prepared: Prepared, made: Made) -> Made:
        """Render what people read and write its files."""
        publisher = self._publisher(prepared.claim)
        papers = publisher.papers(made.assignment, made.outcomes, prepared.loaded, prepared.sources)
        self._store.files.keep([artefact.path for artefact in papers.artefacts])
        return replace(made, papers=papers)

    def commit(self, prepared: Prepared, made: Made) -> bool:
        """Make the job done, with all its results, in one transaction; False where the lease is lost.

        May be called again after DatabaseAwayError: where the first call had gone through unheard, it says True.
        """
        claim, now = prepared.claim, self._now()
        with self._store.write() as connection:
            lock_study(connection, claim.study_instance_uid)
            is_committed = commit_results(
                connection,
                claim,
                now,
                algorithm=describe_algorithm(made.algorithm),
                summary=summarise(made.outcomes),
                reason=not_evaluable_reason(made.outcomes),
                artefacts=made.artefacts,
                resources=self._renderers.fhir(connection, _fhir_input(prepared, made, now)),
                deliveries=claim.destinations,
            )
            return is_committed or _has_committed(connection, claim, made)

    def _publisher(self, claim: Claim) -> Publisher:
        return Publisher(self._store.data_dir, self._renderers, self._destinations_of(claim))

    def _destinations_of(self, claim: Claim) -> list[Destination]:
        """Return those of a job's destinations that are configured."""
        return [self._destinations[name] for name in claim.destinations if name in self._destinations]

    def _inference(self, claim: Claim, model: Model, loaded: LoadedStudy) -> Inference:
        wanted = loaded.wanted_series(model)
        if not wanted:
            held = sorted({one.modality or "no modality" for one in loaded.series if not one.is_own})
            reason = f"no series that {model.algorithm.name} is meant for; the study holds {', '.join(held)}"
            return _answer(NotEvaluable(model.algorithm, "series.none", reason))
        self._bring(loaded, set(wanted))
        files = [loaded.files(self._store.data_dir, uid) for uid in wanted]
        ready = None if self._ahead is None else self._ahead.take(claim.study_instance_uid, claim.bundle, files)
        if ready is not None:
            return ready
        try:
            return model.prepare(files)
        except NotEvaluableError as error:
            series = wanted[0] if len(wanted) == 1 else None
            return _answer(NotEvaluable(model.algorithm, error.code, error.reason, series))

    def _bring(self, loaded: LoadedStudy, series: Collection[str | None]) -> None:
        """See that the files of these series are on this host; None among them means the whole study."""
        wanted = (one for one in loaded.instances if None in series or one.series_instance_uid in series)
        self._store.files.bring(one.path for one in wanted)


def _answer(outcome: Outcome) -> Inference:
    """Return an inference whose answer is known beforehand."""
    return lambda: (outcome,)


def _fhir_input(prepared: Prepared, made: Made, now: datetime) -> FhirInput:
    loaded = prepared.loaded
    return FhirInput(
        job=prepared.claim,
        assignment=made.assignment,
        study=loaded.study,
        series=loaded.series,
        instances=loaded.instances,
        outcomes=made.outcomes,
        artefacts=made.artefacts,
        pictures=() if made.papers is None else made.papers.pictures,
        order=NO_ORDER if made.papers is None else made.papers.order,
        now=now,
        replaces=loaded.is_replacement,
    )


def _has_committed(connection: Connection, claim: Claim, made: Made) -> bool:
    """Say whether the job's artefacts are these very files: no other worker's bear the same digests and times."""
    own = {artefact.path for artefact in made.artefacts}
    return bool(own) and own == {artefact.path for artefact in list_artefacts(connection, claim.job_id)}
