"""The role 'work': needs torch."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from functools import partial

from gateway.config import Settings
from gateway.errors import ConfigurationError
from gateway.report.document.render import render_documents
from gateway.report.picture import render_pictures
from gateway.report.render import render_outcome
from gateway.services import Heartbeat
from gateway.store import Store
from gateway.store.studies import SeriesRow, StudyRow
from gateway.wiring.dispatch import build_router
from gateway.wiring.queue import build_broker
from gateway.wiring.verification import build_fhir_renderer
from gateway.worker import Ahead, FindModel, Limits, Renderers, Worker

try:
    from gateway.wiring.models import Models
    from inference.device import check_device
    from inference.preread import Preread
except ModuleNotFoundError as missing:
    raise ConfigurationError(
        f"{missing.name} is not installed, which the role work needs: "
        "pip install -c constraints.txt 'hybridmed-gateway[inference]', or serve the other roles with --only"
    ) from missing


def build(settings: Settings, store: Store, heartbeat: Heartbeat) -> Worker:
    """Return the worker.

    Raises
    ------
    ConfigurationError
        The device that is set is not there.
    """
    limit_bytes = settings.ahead_mib << 20
    preread = Preread(limit_bytes // 2) if limit_bytes else None
    models = Models(settings, heartbeat, preread)
    return Worker(
        store=store,
        broker=build_broker(settings, store),
        heartbeat=heartbeat,
        find_model=models.find,
        renderers=Renderers(
            render_outcome, render_pictures, build_fhir_renderer(store, settings), documents=render_documents
        ),
        destinations=settings.destinations,
        limits=Limits(
            lease_s=settings.lease_s,
            max_attempts=settings.max_attempts,
            retry_first=timedelta(seconds=settings.retry_s),
            retry_limit=timedelta(seconds=settings.retry_limit_s),
            job_limit_s=settings.job_limit_s,
            together=settings.jobs_together,
        ),
        ahead=None if preread is None else _ahead(settings, store, models.find, preread),
        opened_early=models.opened_early,
        check_device=partial(check_device, settings.device),
    )


def _ahead(settings: Settings, store: Store, find_model: FindModel, preread: Preread) -> Ahead:
    router = build_router(settings, store)

    def route(study: StudyRow, series: Sequence[SeriesRow]) -> Sequence[str]:
        return router.route(study, series).bundles

    return Ahead(
        store, route, find_model, preread, limit_bytes=(settings.ahead_mib << 20) // 2, hung_s=settings.job_limit_s
    )
