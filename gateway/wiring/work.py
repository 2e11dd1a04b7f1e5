"""The role 'work': needs torch."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from gateway.config import Settings
from gateway.errors import ConfigurationError
from gateway.report.document.render import render_documents
from gateway.report.picture import render_pictures
from gateway.report.render import render_outcome
from gateway.services import Heartbeat
from gateway.store import Store
from gateway.store.studies import SeriesRow, StudyRow
from gateway.wiring import usable_bundles
from gateway.wiring.dispatch import build_router
from gateway.wiring.queue import build_broker
from gateway.wiring.verification import build_fhir_renderer
from gateway.worker import Ahead, FindModel, Limits, Renderers, Worker
from inference.errors import InferenceError
from inference.findings import Outcome

try:
    from inference.device import resolve_device
    from inference.predict import open_predictor
    from inference.preread import Preread
    from inference.series_predictor import Inference, SeriesPredictor
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
    find_model = _model_finder(settings, preread)
    return Worker(
        store=store,
        broker=build_broker(settings, store),
        heartbeat=heartbeat,
        find_model=find_model,
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
        ahead=None if preread is None else _ahead(settings, store, find_model, preread),
    )


def _ahead(settings: Settings, store: Store, find_model: FindModel, preread: Preread) -> Ahead:
    router = build_router(settings, store)

    def route(study: StudyRow, series: Sequence[SeriesRow]) -> Sequence[str]:
        return router.route(study, series).bundles

    return Ahead(store, route, find_model, preread, limit_bytes=(settings.ahead_mib << 20) // 2)


def _model_finder(settings: Settings, preread: Preread | None) -> FindModel:
    """Return what gives the model of a bundle, loaded at its first study and kept."""
    try:
        device = str(resolve_device(settings.device))
    except InferenceError as error:
        raise ConfigurationError(f"HYBRIDMED_DEVICE: {error}") from error
    bundles = {bundle.name: bundle for bundle in usable_bundles(settings)}
    loaded: dict[str, _BundleModel] = {}
    loading = threading.Lock()

    def find(name: str) -> _BundleModel | None:
        with loading:
            if name in bundles and name not in loaded:
                is_recorded = settings.gpu_maps == "float16"
                loaded[name] = _model(open_predictor(bundles[name], device, preread, is_recorded=is_recorded))
            return loaded.get(name)

    return find


def _model(predictor: SeriesPredictor[Any]) -> _BundleModel:
    return _BundleModel(predictor) if predictor.most_at_once == 1 else _BatchingModel(predictor)


class _BundleModel:
    """A bundle and its predictor as the worker's `Model`."""

    def __init__(self, predictor: SeriesPredictor[Any]) -> None:
        self.algorithm = predictor.bundle.algorithm
        self.wants = predictor.bundle.applicability.wants
        self._predictor = predictor

    def prepare(self, series: Sequence[Sequence[Path]], /) -> Callable[[], Sequence[Outcome]]:
        """Read and transform; the call infers."""
        return self._predictor.inference(series)


class _BatchingModel(_BundleModel):
    """A model whose images of several studies are evaluated in one batch."""

    def infer_many(self, inferences: Sequence[Callable[[], Sequence[Outcome]]], /) -> Sequence[Sequence[Outcome]]:
        """Evaluate those that are this model's in one call; of others the answer is known beforehand."""
        prepared = [each.prepared for each in inferences if isinstance(each, Inference)]
        said = iter(self._predictor.run_many(prepared))
        return [next(said) if isinstance(each, Inference) else each() for each in inferences]
