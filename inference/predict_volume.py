"""Bundle for volumes + series -> findings, on a device.

As in `predict`, `prepare` reads and checks on the CPU and `run` evaluates. A study often holds series that the model is
not meant for, beside the one that it is: localizers, other fields of view. They are told of only where nothing in the
study can be evaluated; what is damaged is always told of.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from inference.bundle import Bundle, SegmentSpec
from inference.device import using_device
from inference.errors import NotEvaluableError
from inference.findings import Findings, NotEvaluable, Outcome, Segment, SourceFrame
from inference.fit import OTHER_SERIES, check_volume
from inference.foreign.load import load_foreign
from inference.measurement import measure
from inference.networks.weights import load_volume_network
from inference.preread import Preread
from inference.self_test import check_network
from inference.series_predictor import Asked, Prepared, SeriesPredictor
from inference.volume import MAX_VOLUME_BYTES, Volume
from inference.volume_labels import GridVolume, Labels, find_labels, onto_grid

GUARDS = ("least_volume_ml", "least_confidence", "most_cut_share")
"""Thresholds that a bundle must give: of each segment its volume, the mean probability over its voxels, and the share
of its largest plane up to which it may reach over the end of the stack and still count as whole."""

MAX_PREPARED_BYTES = 8 << 30
"""Largest sum of the voxels that one job keeps in memory; further series are not evaluable."""

_MM3_PER_ML = 1000.0


@dataclass(frozen=True, slots=True, eq=False)
class PreparedVolume:
    """One stack of planes within the declared input, ready for the network."""

    series_instance_uid: str
    frames: tuple[SourceFrame, ...]
    voxels: NDArray[np.float32]
    """(Z, Y, X) modality values of the source."""
    affine_lps: NDArray[np.float64]
    on_grid: GridVolume

    @property
    def voxel_mm3(self) -> float:
        """Volume of one source voxel."""
        return abs(float(np.linalg.det(self.affine_lps[:3, :3])))


class VolumePredictor(SeriesPredictor[PreparedVolume]):
    """A bundle's model for volumes, loaded on a device.

    Parameters
    ----------
    bundle
        A bundle for volumes.
    device
        'auto', 'cpu' or 'cuda'.
    preread
        Instances that were read before their series was complete.

    Raises
    ------
    BundleError
        The weights, the network table or the self-test do not fit.
    DeviceError
        The device is not there or is full.
    """

    def __init__(self, bundle: Bundle, device: str = "auto", preread: Preread | None = None) -> None:
        self.spec = bundle.volume
        super().__init__(bundle, device, GUARDS, preread)
        with using_device(self.device):
            self.network = _load(bundle, self.device)

    def prepare(self, series: Sequence[Sequence[Path]]) -> Prepared[PreparedVolume]:
        """Load the files of each series and bring its volumes onto the bundle's grid.

        What lies outside the declared input becomes a `NotEvaluable` among the items, unless it is merely another
        series than the one meant and that one is there.
        """
        items: list[PreparedVolume | NotEvaluable] = []
        free_bytes = MAX_PREPARED_BYTES
        for paths in series:
            for item in self._prepare_series(paths, min(MAX_VOLUME_BYTES, max(free_bytes, 1))):
                items.append(item)
                if isinstance(item, PreparedVolume):
                    free_bytes -= item.voxels.nbytes
        if any(isinstance(item, PreparedVolume) for item in items):
            items = [item for item in items if isinstance(item, PreparedVolume) or item.code not in OTHER_SERIES]
        return Prepared(tuple(items))

    def _prepare_item(self, volume: Volume) -> PreparedVolume:
        affine_lps = check_volume(volume, self.bundle.applicability, self.spec)
        return PreparedVolume(
            series_instance_uid=volume.series_instance_uid,
            frames=volume.frames,
            voxels=volume.voxels,
            affine_lps=affine_lps,
            on_grid=onto_grid(volume.voxels, affine_lps, self.spec),
        )

    def _evaluate(self, asked: Sequence[Asked[PreparedVolume]]) -> Sequence[Outcome]:
        return [self._outcome(one.item, partial(self._find, one.item, one.suffix)) for one in asked]

    def _find(self, item: PreparedVolume, suffix: str) -> Findings:
        labels = find_labels(self.network, item.on_grid, self.spec, item.voxels, item.affine_lps)
        self._check_found(labels, item.voxel_mm3)
        return Findings(
            algorithm=self.bundle.algorithm,
            series_instance_uid=item.series_instance_uid,
            frames=item.frames,
            segments=tuple(
                self._segment(spec, number, labels.numbers == number, item, suffix)
                for number, spec in enumerate(self.bundle.segments, start=1)
            ),
        )

    def _check_found(self, labels: Labels, voxel_mm3: float) -> None:
        """Raise NotEvaluableError where what was found is not plausible."""
        guards = self.bundle.thresholds
        voxels = np.bincount(labels.numbers.ravel(), minlength=1 + len(self.bundle.segments))
        for number, spec in enumerate(self.bundle.segments, start=1):
            found_ml = float(voxels[number]) * voxel_mm3 / _MM3_PER_ML
            if found_ml < guards["least_volume_ml"]:
                reason = f"{spec.label}: {found_ml:.2g} mL found, expected at least {guards['least_volume_ml']:g} mL."
                raise NotEvaluableError("segment.not-found", reason)
            if labels.confidence[number - 1] < guards["least_confidence"]:
                reason = f"What was found as {spec.label.lower()} does not look like it for certain."
                raise NotEvaluableError("segment.implausible", reason)

    def _segment(
        self, spec: SegmentSpec, number: int, mask: NDArray[np.bool_], volume: PreparedVolume, suffix: str
    ) -> Segment:
        planes = mask.sum(axis=(1, 2))  # (Z,)
        is_whole = max(planes[0], planes[-1]) <= self.bundle.thresholds["most_cut_share"] * planes.max()
        return Segment(
            tracking_id=f"{spec.name}{suffix}",
            number=number,
            label=spec.label,
            category=spec.category,
            type=spec.type,
            mask=mask,
            color_lab=spec.color_lab,
            laterality=spec.laterality,
            measurements=measure(
                self.bundle.measurements, mask, volume.voxels, volume.voxel_mm3, is_whole=bool(is_whole)
            ),
        )


def _load(bundle: Bundle, device: torch.device) -> nn.Module:
    if bundle.foreign is not None:
        return load_foreign(bundle, bundle.foreign, device)
    network = load_volume_network(bundle, device)
    check_network(bundle, network)
    return network
