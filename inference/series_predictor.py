"""What predictors of every kind share: series in, one outcome for each image or volume, in order."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from inference.bundle import BUNDLE_FILE, Bundle
from inference.device import DEVICE_FAILURES, resolve_device
from inference.errors import BundleError, DeviceError, NotEvaluableError
from inference.findings import Findings, NotEvaluable, Outcome
from inference.instance import read_header, text
from inference.preread import Preread
from inference.volume import MAX_VOLUME_BYTES, Volume, load_series


class Item(Protocol):
    """One image or volume within the declared input."""

    @property
    def series_instance_uid(self) -> str:
        """Where it comes from."""


ItemType = TypeVar("ItemType", bound=Item)


@dataclass(frozen=True, slots=True)
class Prepared(Generic[ItemType]):
    """What `SeriesPredictor.run` takes: one item per outcome, in order."""

    items: tuple[ItemType | NotEvaluable, ...]


class SeriesPredictor(ABC, Generic[ItemType]):
    """A bundle's model on a device; a subclass loads the network, prepares and evaluates.

    Parameters
    ----------
    bundle
        The model.
    device
        'auto', 'cpu' or 'cuda'.
    guards
        Thresholds that the bundle must give.
    preread
        Instances that were read before their series was complete.

    Raises
    ------
    BundleError
        A threshold is missing.
    DeviceError
        The device is not there.
    """

    def __init__(self, bundle: Bundle, device: str, guards: Sequence[str], preread: Preread | None) -> None:
        if missing := sorted(set(guards) - set(bundle.thresholds)):
            raise BundleError(f"{bundle.path / BUNDLE_FILE}: thresholds.{missing[0]}: is missing")
        self.bundle = bundle
        self.device = resolve_device(device)
        self._preread = preread

    @abstractmethod
    def prepare(self, series: Sequence[Sequence[Path]]) -> Prepared[ItemType]:
        """Load the files of each series; what lies outside the declared input becomes a `NotEvaluable`."""

    @abstractmethod
    def _prepare_item(self, volume: Volume) -> ItemType:
        """Check one volume and bring it onto the network's grid."""

    @abstractmethod
    def _evaluate(self, item: ItemType, suffix: str) -> Findings:
        """Evaluate one item; `suffix` makes tracking identifiers differ between the items of one job."""

    def inference(self, series: Sequence[Sequence[Path]]) -> Callable[[], tuple[Outcome, ...]]:
        """Prepare now; the call runs."""
        return partial(self.run, self.prepare(series))

    def run(self, prepared: Prepared[ItemType]) -> tuple[Outcome, ...]:
        """Evaluate, one outcome per item.

        Raises
        ------
        DeviceError
            The device failed; another try may succeed.
        """
        outcomes: list[Outcome] = []
        for index, item in enumerate(prepared.items):
            if isinstance(item, NotEvaluable):
                outcomes.append(item)
                continue
            try:
                with self.using_device():
                    outcomes.append(self._evaluate(item, suffix="" if index == 0 else f".{index + 1}"))
            except NotEvaluableError as refusal:
                outcomes.append(self._refused(refusal, item.series_instance_uid))
        return tuple(outcomes)

    @contextmanager
    def using_device(self) -> Iterator[None]:
        """Turn what fails on the device into DeviceError."""
        try:
            yield
        except DEVICE_FAILURES as error:
            raise DeviceError(f"{self.device.type}: {type(error).__name__}") from error

    def _prepare_series(
        self, paths: Sequence[Path], limit_bytes: int = MAX_VOLUME_BYTES
    ) -> Iterator[ItemType | NotEvaluable]:
        try:
            loaded = load_series(paths, limit_bytes=limit_bytes, preread=self._preread)
        except NotEvaluableError as refusal:
            yield self._refused(refusal, _series_uid(paths))
            return
        for volume in loaded.volumes:
            try:
                yield self._prepare_item(volume)
            except NotEvaluableError as refusal:
                yield self._refused(refusal, volume.series_instance_uid)
        for code, reason in dict.fromkeys((refusal.code, refusal.reason) for refusal in loaded.refusals):
            yield self._refused(NotEvaluableError(code, reason), _series_uid(paths))

    def _refused(self, refusal: NotEvaluableError, series_uid: str | None) -> NotEvaluable:
        return NotEvaluable(self.bundle.algorithm, refusal.code, refusal.reason, series_uid)


def _series_uid(paths: Sequence[Path]) -> str | None:
    """Return the Series Instance UID of the first file that can be read."""
    for path in paths:
        try:
            return text(read_header(path, MAX_VOLUME_BYTES), "SeriesInstanceUID") or None
        except NotEvaluableError:
            continue
    return None
