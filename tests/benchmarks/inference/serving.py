"""Prepared images -> probabilities, lungs on the source grid and heat maps, in several ways.

plain      a loop over images, eager float32: what one writes first. Each step of the bundle's way by one call of torch
           or scipy: two looks, a full sampling grid, argmax, components, Grad-CAM. No guards, no findings.
ours       `inference.predict` as the worker calls it, up to findings with their measurements
recorded   as ours, on a GPU: maps in float16, recorded as CUDA graphs
onnx       as ours, with ONNX Runtime on the CPU computing the network in float32
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from inference.bundle import Bundle, default_bundle_dir, load_bundle
from inference.findings import Findings, Outcome
from inference.foreign.spec import Allowance
from inference.laplace import LastLayer, load_last_layer
from inference.networks.graph_network import Graph, GraphNetwork
from inference.networks.hybridmednet import HybridMedNet
from inference.networks.weights import load_network
from inference.predict import Predictor, PreparedImage, probabilities_of
from inference.saliency import grad_cam
from inference.series_predictor import Prepared
from inference.training.graph_export import exported
from inference.transforms import Region, around, letter_box, sample

_DETAIL = 2
"""Side of the detail grid over that of the network's input, as the shipped bundle has it."""


@dataclass(frozen=True, slots=True, eq=False)
class Said:
    """What is said of one image."""

    probabilities: NDArray[np.float64]
    """(coarse classes,)."""
    lungs: NDArray[np.uint8]
    """(Y, X) segment numbers."""
    heat_map: NDArray[np.float32]
    """(Y, X)."""


Way: TypeAlias = Callable[[Sequence[PreparedImage]], Sequence[Said | None]]
"""Evaluates images at once; None for one that a guard withholds."""


def open_bundle(name: str, size: int = 0) -> Bundle:
    """Return a shipped bundle by its name or any by its folder; with a size, as if it were made for larger images.

    Its answers are then nobody's, and self-test, guards and novelty say nothing of them: they are left out.
    """
    folder = Path(name) if Path(name).is_dir() else default_bundle_dir() / name
    bundle = load_bundle(folder, allowance=Allowance((folder.name,)))  # named by whoever measures
    if size in {0, bundle.projection.size}:
        return bundle
    shown = replace(bundle.projection, size=size, detail=_DETAIL * size)
    open_guards = {**bundle.thresholds, "least_lung_share": 0.0, "most_lungs_share": 1.0, "least_confidence": 0.0}
    return replace(bundle, input=shown, thresholds=open_guards, self_test=None, novelty=None)


def plain(bundle: Bundle, device: torch.device) -> Way:
    """Loop."""
    network = load_network(bundle, device)
    last_layer = load_last_layer(bundle, network.described_width)

    def run(images: Sequence[PreparedImage]) -> list[Said | None]:
        return [_said_plainly(bundle, network, last_layer, image) for image in images]

    return run


def ours(bundle: Bundle, device: torch.device) -> Way:
    """Serve."""
    return _served(Predictor(bundle, device.type))


def recorded(bundle: Bundle, device: torch.device) -> Way:
    """Serve, with the maps in float16, recorded."""
    if device.type != "cuda":
        raise ValueError("the way recorded is for GPUs")
    return _served(Predictor(bundle, device.type, is_recorded=True))


def onnx(bundle: Bundle, device: torch.device) -> Way:
    """Serve, with the network in ONNX Runtime."""
    if device.type != "cpu":
        raise ValueError("the way onnx is for the CPU")
    predictor = Predictor(bundle, "cpu")
    graphs = (Graph(content, bundle.path) for content in exported(load_network(bundle, device), bundle.projection.size))
    predictor.network = GraphNetwork(predictor.network, *graphs).eval()
    return _served(predictor)


WAYS: dict[str, Callable[[Bundle, torch.device], Way]] = {
    "plain": plain,
    "ours": ours,
    "recorded": recorded,
    "onnx": onnx,
}


def at_once(way: str, batch: int) -> int:
    """Return how many images of a batch the way evaluates together: what serves, no more than for a worker."""
    return 1 if way == "plain" else min(batch, Predictor.most_at_once)


def _served(predictor: Predictor) -> Way:
    def run(images: Sequence[PreparedImage]) -> list[Said | None]:
        outcomes = predictor.run_many([Prepared((image,)) for image in images])
        return [_of(outcome) for (outcome,) in outcomes]

    return run


def _of(outcome: Outcome) -> Said | None:
    if not isinstance(outcome, Findings):
        return None
    lungs = np.zeros(outcome.heat_maps[0].weight.shape, dtype=np.uint8)
    for segment in outcome.segments:
        lungs[segment.mask[0]] = segment.number
    probabilities = [each.probability for each in outcome.findings[0].alternatives]
    return Said(np.array(probabilities), lungs, outcome.heat_maps[0].weight)


def _said_plainly(
    bundle: Bundle, network: HybridMedNet, last_layer: LastLayer | None, image: PreparedImage
) -> Said | None:
    spec, device = bundle.projection, next(network.parameters()).device
    plane = torch.from_numpy(image.grey)[None, None].to(device)  # (1, 1, detail, detail)
    region = letter_box(image.aspect)
    with torch.no_grad():
        levels = network.features(_cut(plane, region, spec.size))
        lungs = _outlined(network, levels, spec.size, region, (spec.detail, spec.detail))
        if lungs.any():
            region = around(lungs > 0, image.aspect, spec.margin)
        levels = network.features(_cut(plane, region, spec.size))
        classes = network.classify(levels)
        lungs = _outlined(network, levels, spec.size, region, image.shape)
        features = network.described(levels).double().cpu().numpy()
    probabilities = probabilities_of(bundle, classes, last_layer, features)[0].probabilities[0]
    positive = bundle.levels[0].class_names.index(bundle.levels[0].positive or "")
    cam = _restored(grad_cam(network, levels, bundle.parents, positive, spec.size), region, image.shape)
    heat_map = (cam[0] * float(probabilities[positive])).cpu().numpy()
    return Said(probabilities, lungs, heat_map)


def _cut(plane: Tensor, region: Region, size: int) -> Tensor:
    return sample(plane, torch.from_numpy(region.theta())[None].to(plane.device), size)


def _outlined(
    network: HybridMedNet, levels: Sequence[Tensor], size: int, region: Region, shape: tuple[int, int]
) -> NDArray[np.uint8]:
    probabilities = torch.softmax(network.segment(levels, (size, size)), dim=1)[0]
    classes = _restored(probabilities, region, shape).argmax(dim=0).to(torch.uint8).cpu().numpy()
    lungs = np.zeros_like(classes)
    for number in range(1, len(probabilities)):
        parts, count = ndimage.label(classes == number)
        if count:
            lungs[parts == 1 + np.bincount(parts.ravel())[1:].argmax()] = number
    return lungs


def _restored(result: Tensor, region: Region, shape: tuple[int, int]) -> Tensor:
    theta = torch.from_numpy(region.inverse_theta())[None].to(result.device)
    grid = functional.affine_grid(theta, [1, len(result), *shape], align_corners=False)  # (1, Y, X, 2)
    back = functional.grid_sample(result[None], grid, mode="bilinear", padding_mode="border", align_corners=False)[0]
    return back.masked_fill((grid[0].abs() > 1).any(dim=2), 0.0)
