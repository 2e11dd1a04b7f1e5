"""What predictors of every kind share: series in, one outcome for each image or volume, in order.

Images of one study, and of several, are evaluated in batches. A batch has a bounded size and is halved where the device
is too full for it. What an image is told does not depend on its neighbours but for the rounding of sums.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from inference.bundle import BUNDLE_FILE, Bundle
from inference.device import resolve_device, using_device
from inference.errors import BundleError, DeviceFullError, NotEvaluableError
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


@dataclass(frozen=True, slots=True)
class Asked(Generic[ItemType]):
    """One item of a batch."""

    item: ItemType
    suffix: str
    """Makes tracking identifiers differ between the items of one job."""


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

    most_at_once = 1
    """Items that are evaluated together."""

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
    def _evaluate(self, asked: Sequence[Asked[ItemType]]) -> Sequence[Outcome]:
        """Evaluate at most `most_at_once` items; one outcome for each."""

    def inference(self, series: Sequence[Sequence[Path]]) -> Inference[ItemType]:
        """Prepare now; the call runs."""
        return Inference(self, self.prepare(series))

    def run(self, prepared: Prepared[ItemType]) -> tuple[Outcome, ...]:
        """Evaluate, one outcome per item; raises what `run_many` raises."""
        (outcomes,) = self.run_many([prepared])
        return outcomes

    def run_many(self, prepared: Sequence[Prepared[ItemType]]) -> list[tuple[Outcome, ...]]:
        """Evaluate several jobs together: of each, one outcome per item, as `run` gives them.

        Raises
        ------
        DeviceError
            The device failed; another try may succeed.
        """
        asked = [
            Asked(item, suffix="" if index == 0 else f".{index + 1}")
            for job in prepared
            for index, item in enumerate(job.items)
            if not isinstance(item, NotEvaluable)
        ]
        batches = [asked[first : first + self.most_at_once] for first in range(0, len(asked), self.most_at_once)]
        said = iter([outcome for batch in batches for outcome in self._fitting(batch)])
        return [tuple(item if isinstance(item, NotEvaluable) else next(said) for item in job.items) for job in prepared]

    def _fitting(self, batch: Sequence[Asked[ItemType]]) -> Sequence[Outcome]:
        """Evaluate a batch, by halves where the device is too full for the whole."""
        try:
            with using_device(self.device):
                return self._evaluate(batch)
        except DeviceFullError:
            if len(batch) == 1:
                raise
        half = len(batch) // 2
        return [*self._fitting(batch[:half]), *self._fitting(batch[half:])]

    def _outcome(self, item: ItemType, evaluate: Callable[[], Findings]) -> Outcome:
        """Return the findings of one item, or why there are none."""
        try:
            return evaluate()
        except NotEvaluableError as refusal:
            return self._refused(refusal, item.series_instance_uid)

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


@dataclass(frozen=True, slots=True, eq=False)
class Inference(Generic[ItemType]):
    """A study in memory, and what evaluates it."""

    predictor: SeriesPredictor[ItemType]
    prepared: Prepared[ItemType]

    def __call__(self) -> tuple[Outcome, ...]:
        """Evaluate it alone."""
        return self.predictor.run(self.prepared)
