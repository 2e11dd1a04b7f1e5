"""A volume through a network: onto the patient's grid, patch by patch, and back as labels of the source's voxels.

Prediction, training and evaluation share this code, so that figures hold for what the gateway does. Memory beside the
source's voxels is bounded by the patch, the grid (a 600-slice CT at 1 mm is 5 times as fine as its grid) and a few
source planes at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional

from inference.grid import Grid, from_grid, grid_around, to_grid
from inference.input_spec import VolumeInput

_CHUNK_VOXELS = 1 << 22
"""Source voxels whose scores are brought back at once: 50 MiB for three classes."""
_LEAST_SPREAD = 1e-6
_UNSURE_LOG_ODDS = 3.0
"""Below it (a probability between 0.05 and 0.95) an edge is the source's to place."""
_FAR_LOG_ODDS = 20.0
_MARGIN = 2
"""Grid voxels around what was found that are brought back, too."""
_AXES = {"z": 2, "y": 3, "x": 4}


@dataclass(frozen=True, slots=True, eq=False)
class GridVolume:
    """A volume as the network is shown it."""

    voxels: Tensor
    """(Z, Y, X) float32, normalised."""
    grid: Grid


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """What a network found."""

    numbers: NDArray[np.uint8]
    """(Z, Y, X) segment numbers on the source grid, 0 for background."""
    confidence: tuple[float, ...]
    """Mean probability of each segment over the grid voxels that it won; 0 where it won none."""


def onto_grid(voxels: NDArray[np.float32], affine_lps: NDArray[np.float64], spec: VolumeInput) -> GridVolume:
    """Bring a volume (Z, Y, X) of modality values onto the bundle's grid, normalised."""
    grid = grid_around(affine_lps, voxels.shape, spec.spacing_mm)
    fill = spec.window[0] if spec.window is not None else float(voxels.min())
    return GridVolume(normalised(to_grid(voxels, affine_lps, grid, fill), spec), grid)


def normalised(voxels: Tensor, spec: VolumeInput) -> Tensor:
    """Return modality values (Z, Y, X) as the network is shown them: windowed, or by their own statistics."""
    if spec.window is not None:
        low, high = spec.window
        return ((voxels - low) * (2 / (high - low)) - 1).clamp(-1, 1)
    assert spec.percentiles is not None  # noqa: S101 -- one of the two is given
    low, high = np.percentile(voxels.numpy(), spec.percentiles)
    clipped = voxels.clamp(float(low), float(high))
    return (clipped - clipped.mean()) / clipped.std().clamp_min(_LEAST_SPREAD)


def find_labels(
    network: nn.Module,
    volume: GridVolume,
    spec: VolumeInput,
    voxels: NDArray[np.float32],
    affine_lps: NDArray[np.float64],
) -> Labels:
    """Segment a volume; `voxels` (Z, Y, X) and `affine_lps` are the source's."""
    scores = largest_parts(predict_scores(network, volume.voxels, spec))
    probabilities = torch.softmax(scores, dim=0)
    best, winner = probabilities.max(dim=0)
    confidence = tuple(_mean(best[winner == number]) for number in range(1, len(scores)))
    numbers = np.zeros(voxels.shape, dtype=np.uint8)
    if bool((winner > 0).any()):
        # Only at an edge of what was found may the source decide: air is air outside the body, too.
        near = ndimage.binary_dilation((winner > 0).numpy(), np.ones((3, 3, 3), dtype=bool))
        scores[0][torch.from_numpy(~near)] += _FAR_LOG_ODDS
        for box in _chunks(_source_box((winner > 0).numpy(), volume.grid, affine_lps, voxels.shape)):
            on_source = from_grid(scores, volume.grid, affine_lps, box)  # (C, z, y, x)
            numbers[box] = _decided(on_source, voxels[box], spec.edge_below)
    return Labels(numbers, confidence)


def predict_scores(network: nn.Module, voxels: Tensor, spec: VolumeInput) -> Tensor:
    """Return (C, Z, Y, X) scores of a normalised (Z, Y, X) volume, the mean over overlapping patches and mirrors."""
    device = next(network.parameters()).device
    batch, inner = _padded(voxels[None, None], spec.patch)  # (1, 1, Z', Y', X')
    with torch.inference_mode():
        scores = _windows(network, batch, spec, device)
        for axis in spec.mirrors:
            mirrored = _windows(network, batch.flip(_AXES[axis]), spec, device)
            scores = scores + mirrored.flip(_AXES[axis])
    return scores[0][inner] / (1 + len(spec.mirrors))


def _padded(batch: Tensor, patch: tuple[int, int, int]) -> tuple[Tensor, tuple[slice, ...]]:
    """Let a volume's border go on up to the size of a patch, as in training; return where the volume lies in it.

    A constant would do harm: the network's norms are over all that it sees.
    """
    lacking = [max(0, side - have) for side, have in zip(patch, batch.shape[2:], strict=True)]
    before = [lack // 2 for lack in lacking]
    ends = [(first, lack - first) for first, lack in zip(before, lacking, strict=True)]
    inner = tuple(slice(first, first + have) for first, have in zip(before, batch.shape[2:], strict=True))
    padded = functional.pad(batch, [size for end in reversed(ends) for size in end], mode="replicate")
    return padded, (slice(None), *inner)


def _windows(network: nn.Module, batch: Tensor, spec: VolumeInput, device: torch.device) -> Tensor:
    from monai.inferers.utils import sliding_window_inference  # noqa: PLC0415 # seconds, which X-rays need not wait for

    scores = sliding_window_inference(
        batch,
        roi_size=spec.patch,
        sw_batch_size=1,
        predictor=network,
        overlap=spec.overlap,
        mode="gaussian",
        sw_device=device,
        device=torch.device("cpu"),
    )
    assert isinstance(scores, Tensor)  # noqa: S101 -- the network gives one tensor
    return scores


def largest_parts(scores: Tensor) -> Tensor:
    """Leave of each segment its largest connected part; elsewhere the next best class wins.

    Parameters
    ----------
    scores
        (C, Z, Y, X).
    """
    cleaned = scores.clone()
    for number in range(1, len(scores)):
        mask = cleaned.argmax(dim=0).numpy() == number
        parts, count = ndimage.label(mask)
        if count > 1:
            largest = 1 + np.bincount(parts.ravel())[1:].argmax()
            stray = torch.from_numpy(mask & (parts != largest))
            cleaned[number][stray] = scores[0][stray] - 1
    return cleaned


def _mean(values: Tensor) -> float:
    return float(values.mean()) if values.numel() else 0.0


def _decided(scores: Tensor, voxels: NDArray[np.float32], edge_below: float | None) -> NDArray[np.uint8]:
    """Return the winning class of each voxel; at edges of which the network is unsure, the source's own value decides.

    The network sees a coarse grid, the source's voxels are several times as fine: it knows what is lung and which, they
    know where it ends.
    """
    winner = scores.argmax(dim=0)  # (z, y, x)
    if edge_below is not None:
        segment, best = 1 + scores[1:].argmax(dim=0), scores[1:].amax(dim=0)
        margin = best - scores[0]  # the logarithm of the odds of segment against background
        is_inside = torch.from_numpy(np.ascontiguousarray(voxels)) < edge_below
        is_unsure = margin.abs() < _UNSURE_LOG_ODDS
        winner = torch.where(is_unsure, torch.where(is_inside, segment, 0), winner)
    return winner.to(torch.uint8).numpy()


def _source_box(
    found: NDArray[np.bool_], grid: Grid, affine_lps: NDArray[np.float64], shape: tuple[int, ...]
) -> tuple[slice, slice, slice]:
    """Return the box of source voxels around what was found on the grid."""
    box = ndimage.find_objects(found.astype(np.uint8))[0]
    ends = [(side.start - _MARGIN, side.stop - 1 + _MARGIN) for side in reversed(box)]  # x, y, z
    corners = np.array([[*corner, 1] for corner in np.stack(np.meshgrid(*ends), axis=-1).reshape(-1, 3)])
    places = (corners @ (np.linalg.inv(affine_lps) @ grid.affine_lps).T)[:, 2::-1]  # (8, 3): z, y, x
    low = np.maximum(np.floor(places.min(axis=0)).astype(int), 0)
    high = np.minimum(np.ceil(places.max(axis=0)).astype(int) + 1, shape)
    z, y, x = (slice(int(start), max(int(start), int(stop))) for start, stop in zip(low, high, strict=True))
    return z, y, x


def _chunks(box: tuple[slice, slice, slice]) -> Iterator[tuple[slice, slice, slice]]:
    """Cut a box into groups of planes."""
    z, y, x = box
    planes = max(1, _CHUNK_VOXELS // max(1, (y.stop - y.start) * (x.stop - x.start)))
    for start in range(z.start, z.stop, planes):
        yield slice(start, min(start + planes, z.stop)), y, x
