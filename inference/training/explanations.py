"""Whether explanations explain: whether they depend on the weights, and lie in the lungs.

Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018: a map that looks the same for a network with random
weights tells of the image, not of the network. The share of a map within the lungs is told beside the share of the
view that the lungs fill: a map that is spread evenly reaches the latter.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor, nn

from inference.attribution import METHODS, attribution_map, pixel_attributions
from inference.bundle import BUNDLE_FILE, Bundle, load_bundle
from inference.device import resolve_device
from inference.errors import BundleError
from inference.input_spec import VolumeInput
from inference.networks import graph_network
from inference.networks.hybridmednet import HybridMedNet
from inference.networks.weights import load_network
from inference.saliency import grad_cam
from inference.training.config import read_config
from inference.training.data import Images, Part
from inference.training.progress import Progress
from inference.training.run import load_part
from inference.transforms import sample
from inference.views import look

GRAD_CAM = "grad-cam"
_SEED = 17
_DIGITS = 4


@dataclass(frozen=True, slots=True)
class ExplanationFigures:
    """Means over the images of one kind of map."""

    within_lungs: float
    """Share of the map within the lungs."""
    lungs_share: float
    """Share of the view that the lungs fill."""
    randomised_correlation: float
    """Spearman's correlation with the map of the same network with random weights; near 0 is good."""


def explain(
    bundle_dir: Path, data_dir: Path, count: int, *, device: str, report: Callable[[Progress], None]
) -> dict[str, object]:
    """Return the figures of each kind of map, by name, over `count` validation images that have a mask.

    Raises
    ------
    BundleError
        As of `check_explained`, or no image has a mask.
    """
    bundle = load_bundle(bundle_dir)
    check_explained(bundle)
    network = load_network(bundle, resolve_device(device))
    images = load_part(bundle, read_config(bundle), data_dir, Part.VALIDATION, report)
    chosen = spread_evenly(np.flatnonzero(images.has_mask).tolist(), count)
    if not chosen:
        raise BundleError(f"{data_dir / 'labels.csv'}: no validation image has a mask to compare with")
    return judge_explanations(
        bundle, network, images, chosen, lambda done: report(Progress("explain", done, len(chosen)))
    )


def check_explained(bundle: Bundle) -> None:
    """Raise BundleError where the bundle is for volumes, or its network is graphs, through which no gradient flows."""
    if isinstance(bundle.input, VolumeInput) or not bundle.levels:
        raise BundleError(f"{bundle.name}: only bundles that classify images are explained")
    if bundle.encoding == graph_network.ENCODING:
        place = f"{bundle.path / BUNDLE_FILE}: weights.encoding"
        raise BundleError(f"{place}: is {bundle.encoding!r}, which has no gradients: explain the one it was made of")


def judge_explanations(
    bundle: Bundle, network: HybridMedNet, images: Images, chosen: list[int], report: Callable[[int], None]
) -> dict[str, object]:
    """Return the figures over the images at `chosen`, and their number."""
    other = randomised(network)
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in (GRAD_CAM, *METHODS)}
    for done, index in enumerate(chosen, start=1):
        view, lungs = _view(network, images, index, bundle)
        maps, random_maps = (_maps(each, view, bundle) for each in (network, other))
        for name, values in maps.items():
            correlation = _correlation(values, random_maps[name])
            found[name].append((within(values, lungs), float(lungs.mean()), correlation))
        report(done)
    means = {name: np.nanmean(np.array(rows), axis=0).tolist() for name, rows in found.items()}
    figures = {name: asdict(ExplanationFigures(*row)) for name, row in means.items()}
    rounded = {name: {key: round(value, _DIGITS) for key, value in row.items()} for name, row in figures.items()}
    return {"images": len(chosen), **rounded}


def spread_evenly(indices: list[int], count: int) -> list[int]:
    """Return at most `count` of these, evenly spread: data sets are sorted by class."""
    places = np.linspace(0, len(indices) - 1, min(count, len(indices))).round().astype(int)
    return [indices[place] for place in places]


def randomised(network: HybridMedNet) -> HybridMedNet:
    """Return the network with the weights of one that has learnt nothing."""
    fresh = copy.deepcopy(network)
    devices = [next(network.parameters()).device] if next(network.parameters()).is_cuda else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(_SEED)
        for module in fresh.modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset) and isinstance(module, nn.Module):
                reset()
    return fresh.eval().requires_grad_(False)


def within(values: NDArray[np.float64], mask: NDArray[np.bool_]) -> float:
    """Return the share of a (Y, X) map's sum within a (Y, X) mask; NaN where the map is empty."""
    total = float(values.sum())
    return float(values[mask].sum()) / total if total > 0 else float("nan")


def _correlation(values: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    if values.std() == 0 or other.std() == 0:
        return float("nan")
    return float(stats.spearmanr(values.ravel(), other.ravel()).statistic)


def _view(network: HybridMedNet, images: Images, index: int, bundle: Bundle) -> tuple[Tensor, NDArray[np.bool_]]:
    """Return the second look's image (1, 1, s, s), and where the mask has lungs in it (s, s)."""
    spec = bundle.projection
    grey = images.grey[index : index + 1].astype(np.float32) / np.float32(255)  # (1, detail, detail)
    region = look(network, grey, [float(images.aspects[index])], spec).regions[0]
    theta = torch.from_numpy(region.theta())[None]
    planes = torch.stack([torch.from_numpy(grey[0]), torch.from_numpy(images.lungs[index] > 0).float()])[:, None]
    image, lungs = sample(planes, theta.expand(2, -1, -1), spec.size)  # (1, s, s) each
    return image[None].to(next(network.parameters()).device), (lungs[0] > 0.5).numpy()  # noqa: PLR2004 -- one half


def _maps(network: HybridMedNet, image: Tensor, bundle: Bundle) -> dict[str, NDArray[np.float64]]:
    """Return the (s, s) map of each kind for the coarse level's positive class."""
    level = bundle.levels[0]
    index = level.class_names.index(level.positive or level.class_names[-1])
    with torch.no_grad():
        levels = network.features(image)
    maps = {GRAD_CAM: grad_cam(network, levels, bundle.parents, index, image.shape[-1])}
    for method in METHODS:
        maps[method] = attribution_map(pixel_attributions(network, image, bundle.parents, index, method))
    return {name: values[0].double().cpu().numpy() for name, values in maps.items()}
