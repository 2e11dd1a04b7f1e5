"""Studies processed anew on request: new jobs, whose results replace the earlier ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy.engine import Connection

from gateway.dispatcher import Router
from gateway.errors import NotFoundError
from gateway.job import Priority, State
from gateway.store import Store
from gateway.store.jobs import JobFilter, JobRow, create_job, list_jobs
from gateway.store.studies import StudyFilter, get_study, list_series, list_study_uids

_ALL = 10_000


@dataclass(frozen=True, slots=True)
class Request:
    """What to process anew."""

    which: StudyFilter
    """UIDs, modality, time of reception; together."""
    bundle: str | None = None
    """None: those that gave a result before, else as routing decides."""
    priority: Priority = "routine"


@dataclass(frozen=True, slots=True)
class Reprocessed:
    """What became of one study."""

    study_instance_uid: str
    job_ids: tuple[str, ...]
    reason: str | None
    """Why there is no job."""


def reprocess(store: Store, router: Router, request: Request, now: datetime) -> tuple[int, Iterator[Reprocessed]]:
    """Make new jobs for studies.

    Returns
    -------
    tuple
        How many studies there are, and what becomes of each, made as it is asked for.

    Raises
    ------
    NotFoundError
        A UID given, or the bundle, is not there; nothing is begun then.
    """
    installed = [offer.name for offer in router.offers]
    if request.bundle is not None and request.bundle not in installed:
        raise NotFoundError(f"no bundle {request.bundle}; installed: {', '.join(installed) or 'none'}")
    with store.read() as connection:
        for uid in request.which.uids or ():
            get_study(connection, uid)
        uids = list_study_uids(connection, request.which)
    return len(uids), (_reprocess_one(store, router, request, uid, now) for uid in uids)


def _reprocess_one(store: Store, router: Router, request: Request, uid: str, now: datetime) -> Reprocessed:
    with store.read() as connection:
        study = get_study(connection, uid)
        series = list_series(connection, uid)
        done = _latest_done(connection, uid)
    if study.state == "receiving":
        return Reprocessed(uid, (), "instances are still arriving: it will be processed when it is complete")
    # As if all of it were new: that nothing came since the last time is no reason now.
    decision = router.route(replace(study, revision=1), series)
    earlier = {offer.name: done[offer.name] for offer in router.offers if offer.name in done}
    bundles = (request.bundle,) if request.bundle is not None else tuple(earlier) or decision.bundles
    if not bundles:
        return Reprocessed(uid, (), decision.reason)
    by_routing = router.destinations(decision)
    destinations = {name: earlier[name].destinations if name in earlier else by_routing for name in bundles}
    with store.write() as connection:
        job_ids = [
            create_job(
                connection,
                study_instance_uid=uid,
                study_revision=study.revision,
                bundle=name,
                priority=request.priority,
                destinations=destinations[name],
                requested_by="reprocess",
                now=now,
            )
            for name in bundles
        ]
    return Reprocessed(uid, tuple(job_ids), None)


def _latest_done(connection: Connection, uid: str) -> dict[str, JobRow]:
    """Return the latest finished job of each bundle."""
    done: Sequence[JobRow] = list_jobs(connection, JobFilter(states=(State.DONE,), study_instance_uid=uid), limit=_ALL)
    return {row.bundle: row for row in sorted(done, key=lambda row: row.revision)}
