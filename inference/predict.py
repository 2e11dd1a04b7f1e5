"""Bundle for projection images + series -> findings, on a device. `open_predictor` takes bundles of every kind.

`Predictor.prepare` reads and checks on the CPU, `Predictor.run` evaluates on the device, several images at once: a
worker prepares one job while the device is busy with others. Every image or volume ends in exactly one outcome.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from inference.bundle import Bundle, SegmentSpec
from inference.classes import answer_levels
from inference.device import using_device
from inference.errors import NotEvaluableError
from inference.findings import (
    Code,
    Findings,
    HeatMap,
    Measurement,
    Outcome,
    Segment,
    SourceFrame,
)
from inference.input_spec import ProjectionInput, VolumeInput
from inference.laplace import LastLayer, Predictive, draw, load_last_layer, predict
from inference.lungs import GUARDS, check_lungs
from inference.networks.graph_network import GraphNetwork
from inference.networks.heads import ClassLogits
from inference.networks.hybridmednet import HybridMedNet
from inference.networks.recorded import RecordedNetwork
from inference.networks.serving import as_served
from inference.networks.weights import load_network
from inference.novelty import KnownFeatures, check_known
from inference.predict_volume import VolumePredictor
from inference.preread import Preread
from inference.saliency import grad_cam
from inference.self_test import check_network
from inference.series_predictor import Asked, Prepared, SeriesPredictor
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
    is_recorded
        On a GPU, compute the network's maps in float16, recorded (`networks.recorded`); the self-test holds for them.

    Raises
    ------
    BundleError
        The weights, the network table, the self-test or the known features do not fit.
    DeviceError
        The device is not there or is full.
    """

    most_at_once = 16

    def __init__(
        self, bundle: Bundle, device: str = "auto", preread: Preread | None = None, *, is_recorded: bool = False
    ) -> None:
        self.spec = bundle.projection
        super().__init__(bundle, device, GUARDS, preread)
        with using_device(self.device):
            network = as_served(load_network(bundle, self.device))
            can_record = self.device.type == "cuda" and not isinstance(network, GraphNetwork)
            self.network = RecordedNetwork(network) if is_recorded and can_record else network
            check_network(bundle, self.network)
        self.known = load_known(bundle, self.network)
        self.last_layer = load_last_layer(bundle, self.network.described_width)

    def _evaluate(self, asked: Sequence[Asked[PreparedImage]]) -> Sequence[Outcome]:
        items = [one.item for one in asked]
        view = look(self.network, np.stack([item.grey for item in items]), [item.aspect for item in items], self.spec)
        features = described(self.network, view)  # (B, D)
        levels = probabilities_of(self.bundle, view.classes, self.last_layer, features)
        outcomes: list[Outcome] = []
        for index, one in enumerate(asked):
            said = _Said(
                view=view.of([index]),
                features=features[[index]],
                probabilities=[level.probabilities[index] for level in levels],
                epistemic=[None if level.epistemic is None else float(level.epistemic[index]) for level in levels],
            )
            outcomes.append(self._outcome(one.item, partial(self._find, one, said)))
        return self._explained(outcomes, items, view, levels[0].probabilities)

    def _find(self, asked: Asked[PreparedImage], said: _Said) -> Findings:
        """Return the findings of one image, without heat maps; NotEvaluableError where a guard withholds them."""
        item, suffix = asked.item, asked.suffix
        lungs = segmented(said.view.lungs[0], said.view.regions[0], item.shape)  # (Y, X)
        check_lungs(lungs, said.view, self.bundle.thresholds)
        if self.known is not None and self.bundle.novelty is not None:
            check_known(self.known, said.features, self.bundle.novelty.limit)
        return Findings(
            algorithm=self.bundle.algorithm,
            series_instance_uid=item.series_instance_uid,
            frames=(item.frame,),
            findings=answer_levels(self.bundle, said.probabilities, suffix, said.epistemic),
            segments=tuple(
                planar_segment(spec, number, lungs == number, item.spacing_mm, suffix)
                for number, spec in enumerate(self.bundle.segments, start=1)
                if (lungs == number).any()
            ),
        )

    def _explained(
        self,
        outcomes: Sequence[Outcome],
        images: Sequence[PreparedImage],
        view: LungView,
        probabilities: NDArray[np.float64],
    ) -> Sequence[Outcome]:
        """Give the findings a heat map of the coarse level's positive class.

        The class's probability, of (B, classes), scales the map, so that 'no' stays dim.
        """
        level = self.bundle.levels[0]
        found = [index for index, outcome in enumerate(outcomes) if isinstance(outcome, Findings)]
        if not found or not level.has_heat_map or level.positive is None:
            return outcomes
        positive = level.class_names.index(level.positive)
        cams = grad_cam(self.network, view.of(found).levels, self.bundle.parents, positive, self.spec.size)  # (F, s, s)
        explained = list(outcomes)
        for index, cam in zip(found, cams, strict=True):
            image, findings = images[index], outcomes[index]
            weight = _on_source(cam, view.regions[index], image.shape) * np.float32(probabilities[index, positive])
            heat_map = HeatMap(level.positive, level.name, image.frame, weight)
            if isinstance(findings, Findings):
                explained[index] = replace(findings, heat_maps=(heat_map,))
        return explained


@dataclass(frozen=True, slots=True, eq=False)
class _Said:
    """What the network said of one image."""

    view: LungView
    features: NDArray[np.float64]
    """(1, D)."""
    probabilities: Sequence[NDArray[np.float64]]
    """(classes,) of each level."""
    epistemic: Sequence[float | None]
    """Of each level, as `laplace.Predictive` tells it."""


def probabilities_of(
    bundle: Bundle, classes: ClassLogits, last_layer: LastLayer | None, features: NDArray[np.float64]
) -> tuple[Predictive, Predictive]:
    """Return the calibrated probabilities of both levels, given (B, D) features."""
    coarse, fine = (scores.double().cpu().numpy() for scores in classes)
    return predict(draw(coarse, fine, bundle.parents, last_layer, features), bundle.parents, bundle.temperatures)


def open_predictor(
    bundle: Bundle, device: str = "auto", preread: Preread | None = None, *, is_recorded: bool = False
) -> ImagePredictor | VolumePredictor:
    """Return the predictor of a bundle by the kind of its input; raises what the predictors raise.

    `is_recorded` is for networks of ours that take projection images; others run as they are.
    """
    if isinstance(bundle.input, VolumeInput):
        return VolumePredictor(bundle, device, preread)
    if bundle.foreign is not None:
        from inference.foreign.predict_image import ForeignPredictor  # noqa: PLC0415 # it builds on this module

        return ForeignPredictor(bundle, bundle.foreign, device, preread)
    return Predictor(bundle, device, preread, is_recorded=is_recorded)


def load_known(bundle: Bundle, network: HybridMedNet) -> KnownFeatures | None:
    """Return what the features of the training images are like, where the bundle tells it."""
    if bundle.novelty is None:
        return None
    return KnownFeatures.load(bundle.novelty.file, network.described_width)


def _on_source(cam: torch.Tensor, region: Region, shape: tuple[int, int]) -> NDArray[np.float32]:
    weight: NDArray[np.float32] = restore(cam[None], region, shape)[0].clamp_(0, 1).cpu().numpy()
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
