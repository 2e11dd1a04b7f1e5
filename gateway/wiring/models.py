"""The bundles as models of a worker: needs torch."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import structlog

from gateway.config import Settings
from gateway.errors import ConfigurationError
from gateway.pulse import ended_when_hung
from gateway.services import Heartbeat
from gateway.wiring import allowance, bundle_dirs, usable_bundles
from inference.bundle import BUNDLE_FILE, Bundle, load_bundle
from inference.device import resolve_device
from inference.errors import BundleError, DeviceError
from inference.findings import Outcome
from inference.predict import open_predictor
from inference.preread import Preread
from inference.series_predictor import Inference, SeriesPredictor

log = structlog.get_logger()

State: TypeAlias = frozenset[tuple[str, int, int]]
"""Name, size and last change of each file of a bundle, which is another one for every change."""


def settings_device(settings: Settings) -> str:
    """Return the device that is set; ConfigurationError where it is not there."""
    try:
        return str(resolve_device(settings.device))
    except DeviceError as error:
        raise ConfigurationError(f"HYBRIDMED_DEVICE: {error}") from error


def open_bundle(
    settings: Settings, bundle: Bundle, device: str, preread: Preread | None = None
) -> SeriesPredictor[Any]:
    """Return the predictor of a bundle, its self-test passed.

    Raises
    ------
    BundleError
        Network, weights or self-test do not fit.
    DeviceError
        The device is full.
    """
    return open_predictor(bundle, device, preread, is_recorded=settings.gpu_maps == "float16")


@dataclass(frozen=True, slots=True)
class _Refusal:
    """Why a bundle is bad, and of which state of its files that was found."""

    state: State
    sentence: str


class Models:
    """Opens each bundle once, and one that is bad not again before it has changed.

    Parameters
    ----------
    settings
        Where bundles are, and how they run.
    heartbeat
        Hears which are bad.
    preread
        Instances that were read before their series was complete.

    Raises
    ------
    ConfigurationError
        The device that is set is not there.
    """

    def __init__(self, settings: Settings, heartbeat: Heartbeat, preread: Preread | None) -> None:
        self._settings, self._heartbeat, self._preread = settings, heartbeat, preread
        self._device = settings_device(settings)
        bundles = usable_bundles(settings)
        self._folders = {bundle.name: bundle.path for bundle in bundles}
        self.opened_early = tuple(bundle.name for bundle in bundles if not bundle.is_program)
        """Those to open before their first study. A program may end the process: that shall count as a job's try."""
        self._opened: dict[str, BundleModel] = {}
        self._refused: dict[str, _Refusal] = {}
        self._opening = threading.Lock()

    def find(self, name: str) -> BundleModel | None:
        """Return the model of a bundle; None where it is not installed.

        Raises
        ------
        BundleError
            The bundle is bad; says why.
        DeviceError
            The device is full.
        """
        with self._opening:
            if name in self._opened:
                return self._opened[name]
            folder = self._folder(name)
            if folder is None:
                return None
            state, refusal = _state(folder), self._refused.get(name)
            if refusal is not None and refusal.state == state:
                raise BundleError(refusal.sentence)
            try:
                with ended_when_hung(self._settings.job_limit_s, "the opening of a bundle"):
                    self._opened[name] = _model(self._open(name, folder))
            except BundleError as error:
                self._refuse(name, state, error)
                raise
            self._refused.pop(name, None)
            self._heartbeat.recovered(_part(name))
            return self._opened[name]

    def _folder(self, name: str) -> Path | None:
        """Return where a bundle lies: one that was bad or absent at the start, in the folder of its name."""
        folders = [self._folders[name]] if name in self._folders else []
        folders += [each / name for each in bundle_dirs(self._settings)]
        return next((folder for folder in folders if (folder / BUNDLE_FILE).is_file()), None)

    def _open(self, name: str, folder: Path) -> SeriesPredictor[Any]:
        bundle = load_bundle(folder, allowance=allowance(self._settings))
        if bundle.name != name:
            raise BundleError(f"{folder / BUNDLE_FILE}: name: must be {name!r}, is {bundle.name!r}")
        return open_bundle(self._settings, bundle, self._device, self._preread)

    def _refuse(self, name: str, state: State, error: BundleError) -> None:
        log.error("bundle.refused", reason=str(error))
        self._heartbeat.degraded(_part(name), str(error))
        if not isinstance(error.__cause__, OSError):  # what could not be read may be readable at the next look
            self._refused[name] = _Refusal(state, str(error))


def _part(name: str) -> str:
    return f"bundle {name}"


def _state(folder: Path) -> State:
    files = [(file, file.stat()) for file in folder.rglob("*") if file.is_file()]
    return frozenset((file.relative_to(folder).as_posix(), stat.st_size, stat.st_ctime_ns) for file, stat in files)


def _model(predictor: SeriesPredictor[Any]) -> BundleModel:
    return BundleModel(predictor) if predictor.most_at_once == 1 else _BatchingModel(predictor)


class BundleModel:
    """A bundle and its predictor as the worker's `Model`."""

    def __init__(self, predictor: SeriesPredictor[Any]) -> None:
        self.algorithm = predictor.bundle.algorithm
        self.wants = predictor.bundle.applicability.wants
        self._predictor = predictor

    def prepare(self, series: Sequence[Sequence[Path]], /) -> Callable[[], Sequence[Outcome]]:
        """Read and transform; the call infers."""
        return self._predictor.inference(series)


class _BatchingModel(BundleModel):
    """A model whose images of several studies are evaluated in one batch."""

    def infer_many(self, inferences: Sequence[Callable[[], Sequence[Outcome]]], /) -> Sequence[Sequence[Outcome]]:
        """Evaluate those that are this model's in one call; of others the answer is known beforehand."""
        prepared = [each.prepared for each in inferences if isinstance(each, Inference)]
        said = iter(self._predictor.run_many(prepared))
        return [next(said) if isinstance(each, Inference) else each() for each in inferences]
