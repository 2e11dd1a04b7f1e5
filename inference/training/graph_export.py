"""A HybridMedNet as two ONNX graphs: image to fused levels, levels to outlines.

ONNX knows no resampling with a low pass, but that is linear along rows and along columns: here it is two matrices.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from inference.errors import BundleError
from inference.networks.graph_network import Graph
from inference.networks.hybridmednet import HybridMedNet

IMAGE = "image"
_OPSET = 18
_TOLERANCE = 1e-3
"""Of the largest value: sums are only taken in another order."""


class FeatureGraph(nn.Module):
    """(B, 1, size, size) images to fused levels, finest first."""

    def __init__(self, network: HybridMedNet, size: int) -> None:
        super().__init__()
        self.network = network
        self.resampling = nn.ParameterList(
            nn.Parameter(resampling(size, scale), requires_grad=False) for scale in network.scales[1:]
        )

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return the levels, as `HybridMedNet.features` does."""
        network = self.network
        smaller = [matrix @ image @ matrix.T for matrix in self.resampling]  # (B, 1, scale * size, scale * size)
        per_scale = [
            attend(network.pyramid(network.backbone(shown)))
            for shown, attend in zip([image, *smaller], network.attention, strict=True)
        ]
        return tuple(network.fuse(per_scale))


class SegmentationGraph(nn.Module):
    """Fused levels to (B, segmentation classes, size, size) scores."""

    def __init__(self, network: HybridMedNet, size: int) -> None:
        super().__init__()
        self.network, self.size = network, size

    def forward(self, *levels: Tensor) -> Tensor:
        """Return the scores, as `HybridMedNet.segment` does."""
        return self.network.segment(levels, (self.size, self.size))


def resampling(side: int, scale: float) -> Tensor:
    """Return the (round(side * scale), side) matrix of the resampling with a low pass that `pyramid.at_scale` does."""
    impulses = torch.eye(side)[None, None]  # (1, 1, side, side)
    size = [round(side * scale), side]
    return functional.interpolate(impulses, size=size, mode="bilinear", align_corners=False, antialias=True)[0, 0]


def exported(network: HybridMedNet, size: int) -> tuple[bytes, bytes]:
    """Return the graphs of a network in float32, for batches of any size.

    Raises
    ------
    BundleError
        ONNX cannot say it, a graph answers otherwise than the network, or the package `onnx` is missing.
    """
    if network.inputs > 1:
        raise BundleError("network.inputs: only networks with one input become graphs")
    image = torch.rand(2, 1, size, size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        levels = network.features(image)
    features = _graph(FeatureGraph(network, size), [image], [IMAGE], _level_names(levels))
    segmentation = _graph(SegmentationGraph(network, size), levels, _level_names(levels), ["scores"])
    _check(network, features, segmentation, size)
    return features, segmentation


def _level_names(levels: Sequence[Tensor]) -> list[str]:
    return [f"level{index}" for index in range(len(levels))]


def _graph(module: nn.Module, shown: Sequence[Tensor], inputs: list[str], outputs: list[str]) -> bytes:
    file = io.BytesIO()
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of the exporter, which traces
            torch.onnx.export(
                module.eval(),
                tuple(shown),
                file,  # type: ignore[arg-type]  # what traces takes a stream, too
                input_names=inputs,
                output_names=outputs,
                dynamic_axes={name: {0: "batch"} for name in (*inputs, *outputs)},
                opset_version=_OPSET,
                dynamo=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        raise BundleError(f"network: cannot be written as ONNX: {error}") from error
    return file.getvalue()


def _check(network: HybridMedNet, features: bytes, segmentation: bytes, size: int) -> None:
    """Raise BundleError where the graphs do not answer as the network does, for one image and for several."""
    place = Path("network")
    run_features, run_segmentation = Graph(features, place), Graph(segmentation, place)
    for batch in (1, 3):
        image = torch.rand(batch, 1, size, size, generator=torch.Generator().manual_seed(batch))
        with torch.no_grad():
            levels = network.features(image)
            expected = [*levels, network.segment(levels, (size, size))]
        said = [*run_features([image]), *run_segmentation(levels)]
        for one, other in zip(said, expected, strict=True):
            if one.shape != other.shape or (one - other).abs().max() > _TOLERANCE * other.abs().max().clamp(min=1):
                raise BundleError("network: as ONNX it answers otherwise: it holds a part that cannot be written so")
