"""Bundle for projection images + series -> findings, on a device. `open_predictor` takes bundles of every kind.

`Predictor.prepare` reads and checks on the CPU, `Predictor.run` evaluates on the device: a worker prepares one job
while the device is busy with another. Every image or volume ends in exactly one outcome.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from inference.bundle import Bundle, SegmentSpec
from inference.classes import answer_levels
from inference.errors import NotEvaluableError
from inference.findings import (
    Code,
    Findings,
    HeatMap,
    Measurement,
    Segment,
    SourceFrame,
)
from inference.input_spec import ProjectionInput, VolumeInput
from inference.lungs import GUARDS, check_lungs
from inference.networks.heads import hierarchical_log_probabilities
from inference.networks.hybridmednet import HybridMedNet
from inference.networks.weights import load_network
from inference.novelty import KnownFeatures, check_known
from inference.predict_volume import VolumePredictor
from inference.preread import Preread
from inference.saliency import grad_cam
from inference.self_test import check_network
from inference.series_predictor import Prepared, SeriesPredictor
from inference.transforms import Region, normalised, restore
from inference.views import LungView, described, look, segmented
from inference.volume import Volume

_AREA = Code("42798000", "SCT", "Area")
_SQUARE_CM = Code("cm2", "UCUM", "square centimeter")
_MM2_PER_CM2 = 100.0


@dataclass(frozen=True, slots=True, eq=False)
class PreparedImage:
    """One projection image within the declared input, ready for the network."""

    series_instance_uid: str
    frame: SourceFrame
    grey: NDArray[np.float32]
    """(detail, detail) in 0..1."""
    shape: tuple[int, int]
    """(Y, X) of the source grid."""
    spacing_mm: tuple[float, float] | None
    """(y, x) in the detector plane; None if unknown."""

    @property
    def aspect(self) -> float:
        """Physical width over height."""
        spacing_y, spacing_x = self.spacing_mm or (1.0, 1.0)
        return (self.shape[1] * spacing_x) / (self.shape[0] * spacing_y)


class ImagePredictor(SeriesPredictor[PreparedImage]):
    """What predictors for projection images share: how images are checked and prepared."""

    spec: ProjectionInput

    def prepare(self, series: Sequence[Sequence[Path]]) -> Prepared[PreparedImage]:
        """Load the files of each series and bring its images onto the detail grid.

        What lies outside the declared input becomes a `NotEvaluable` among the items.
        """
        return Prepared(tuple(item for paths in series for item in self._prepare_series(paths)))

    def _prepare_item(self, volume: Volume) -> PreparedImage:
        _check_declared_input(volume, self.bundle)
        spec = self.spec
        plane = volume.voxels[0]  # (Y, X)
        return PreparedImage(
            series_instance_uid=volume.series_instance_uid,
            frame=volume.frames[0],
            grey=normalised(plane, spec.detail, spec.percentiles),
            shape=(plane.shape[0], plane.shape[1]),
            spacing_mm=None if volume.spacing_mm is None else volume.spacing_mm[1:],
        )


class Predictor(ImagePredictor):
    """A bundle's model for projection images, loaded on a device.

    Parameters
    ----------
    bundle
        A bundle for projection images.
    device
        'auto', 'cpu' or 'cuda'.
    preread
        Instances that were read before their series was complete.

    Raises
    ------
    BundleError
        The weights, the network table, the self-test or the known features do not fit.
    DeviceError
        The device is not there or is full.
    """

    def __init__(self, bundle: Bundle, device: str = "auto", preread: Preread | None = None) -> None:
        self.spec = bundle.projection
        super().__init__(bundle, device, GUARDS, preread)
        with self.using_device():
            self.network = load_network(bundle, self.device)
            check_network(bundle, self.network)
        self.known = load_known(bundle, self.network)

    def _evaluate(self, item: PreparedImage, suffix: str) -> Findings:
        """Evaluate one image; `suffix` makes tracking identifiers differ between the images of one job."""
        view = look(self.network, item.grey[None], [item.aspect], self.spec)
        lungs = segmented(view.lungs[0], view.regions[0], item.shape)  # (Y, X)
        check_lungs(lungs, view, self.bundle.thresholds)
        if self.known is not None and self.bundle.novelty is not None:
            check_known(self.known, described(self.network, view), self.bundle.novelty.limit)
        coarse, fine = self.bundle.temperatures
        levels = hierarchical_log_probabilities(view.classes, self.bundle.parents, (coarse, fine))
        probabilities = [level[0].exp().double().cpu().numpy() for level in levels]
        return Findings(
            algorithm=self.bundle.algorithm,
            series_instance_uid=item.series_instance_uid,
            frames=(item.frame,),
            findings=answer_levels(self.bundle, probabilities, suffix),
            segments=tuple(
                planar_segment(spec, number, lungs == number, item.spacing_mm, suffix)
                for number, spec in enumerate(self.bundle.segments, start=1)
                if (lungs == number).any()
            ),
            heat_maps=tuple(self._heat_maps(item, view, probabilities[0])),
        )

    def _heat_maps(self, image: PreparedImage, view: LungView, probabilities: NDArray[np.float64]) -> Iterator[HeatMap]:
        """Explain the coarse level's positive class; its probability scales the map, so that 'no' stays dim."""
        level = self.bundle.levels[0]
        if not level.has_heat_map or level.positive is None:
            return
        index = level.class_names.index(level.positive)
        cam = grad_cam(self.network, view.levels, self.bundle.parents, index, self.spec.size)  # (1, s, s)
        on_source = _on_source(cam, view.regions[0], image.shape) * np.float32(probabilities[index])
        yield HeatMap(level.positive, level.name, image.frame, on_source)


def open_predictor(
    bundle: Bundle, device: str = "auto", preread: Preread | None = None
) -> ImagePredictor | VolumePredictor:
    """Return the predictor of a bundle by the kind of its input; raises what the predictors raise."""
    if isinstance(bundle.input, VolumeInput):
        return VolumePredictor(bundle, device, preread)
    if bundle.foreign is not None:
        from inference.foreign.predict_image import ForeignPredictor  # noqa: PLC0415 # it builds on this module

        return ForeignPredictor(bundle, bundle.foreign, device, preread)
    return Predictor(bundle, device, preread)


def load_known(bundle: Bundle, network: HybridMedNet) -> KnownFeatures | None:
    """Return what the features of the training images are like, where the bundle tells it."""
    if bundle.novelty is None:
        return None
    return KnownFeatures.load(bundle.novelty.path, network.described_width)


def _on_source(maps: torch.Tensor, region: Region, shape: tuple[int, int]) -> NDArray[np.float32]:
    weight: NDArray[np.float32] = restore(maps, region, shape)[0].clamp(0, 1).cpu().numpy()
    return weight  # (Y, X)


def planar_segment(
    spec: SegmentSpec, number: int, mask: NDArray[np.bool_], spacing_mm: tuple[float, float] | None, suffix: str
) -> Segment:
    """Return a segment of an image with its area, where the spacing is known; `mask` is (Y, X)."""
    measurements: tuple[Measurement, ...] = ()
    if spacing_mm is not None:
        area_cm2 = float(mask.sum()) * spacing_mm[0] * spacing_mm[1] / _MM2_PER_CM2
        measurements = (Measurement(_AREA, area_cm2, _SQUARE_CM),)
    return Segment(
        tracking_id=f"{spec.name}{suffix}",
        number=number,
        label=spec.label,
        category=spec.category,
        type=spec.type,
        mask=mask[None],  # (1, Y, X)
        color_lab=spec.color_lab,
        laterality=spec.laterality,
        measurements=measurements,
    )


def _check_declared_input(volume: Volume, bundle: Bundle) -> None:
    """Raise NotEvaluableError where the image is not what the bundle declares."""
    meant, known = bundle.applicability, volume.attributes
    description = known.get("SeriesDescription", "")
    if volume.modality not in meant.modalities:
        raise NotEvaluableError("modality", f"Modality is {volume.modality}, expected {_listed(meant.modalities)}.")
    body_part = known.get("BodyPartExamined", "")
    if not meant.covers(body_part, description):
        raise NotEvaluableError("body-part", f"The body part is {body_part or 'not the chest'}, expected the chest.")
    if not meant.reads_view(known.get("ViewPosition", ""), description):
        view = known.get("ViewPosition", "lateral")
        raise NotEvaluableError("projection", f"The view is {view}, expected a frontal one (PA or AP).")
    if not meant.covers_age(known.get("PatientAge", "")):
        first, last = meant.ages_years or (0, 0)
        raise NotEvaluableError("age", f"The patient's age is outside the model's {first} to {last} years.")
    _check_pixels(volume.voxels, bundle.projection.least_side_px)


def _check_pixels(voxels: NDArray[np.float32], least_side_px: int) -> None:
    planes, height, width = voxels.shape
    if planes != 1:
        raise NotEvaluableError("image.planes", f"There are {planes} planes, expected one projection image.")
    if min(height, width) < least_side_px:
        reason = f"The image has {width} x {height} pixels, expected at least {least_side_px} on each side."
        raise NotEvaluableError("image.small", reason)
    if voxels.min() == voxels.max():
        raise NotEvaluableError("image.blank", "All pixels have the same value.")


def _listed(words: Sequence[str]) -> str:
    return " or ".join(words)
