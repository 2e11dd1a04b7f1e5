"""int8: networks that compute in it, and weights that are merely stored in it.

Static quantisation after training (Jacob et al., "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference", CVPR 2018) by ONNX Runtime: one scale for each output channel of a convolution, one
for each map, found on training images in both looks. Weights take 7 of the 8 bits: sums of two products then fit
into 16 bits, so that processors with and without instructions for int8 (VNNI) give the same answers.

Which operators pay in int8 differs from network to network: between convolutions and ReLUs all do, but between two
convolutions a sigmoid in float may cost more than these gain. So each choice is tried, and timed.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inference.bundle import ENCODINGS, Bundle
from inference.errors import BundleError
from inference.networks.graph_network import ENCODING, Graph, save_graph_network
from inference.networks.hybridmednet import HybridMedNet
from inference.networks.weights import load_network, save_quantised_weights
from inference.training.config import read_config
from inference.training.data import Images, Part
from inference.training.graph_export import IMAGE, exported
from inference.training.making import Work
from inference.training.run import load_part
from inference.views import look

_CONVOLUTIONS = ("Conv",)
_WITH_BOUNDS = (*_CONVOLUTIONS, "Relu", "Clip")
_CHOICES = (_CONVOLUTIONS, _WITH_BOUNDS, (*_WITH_BOUNDS, "Add", "Mul", "Sigmoid", "HardSigmoid", "MaxPool"))
"""Operators in int8; the matrices that resample the image stay in float."""
_BATCH = 8
_TRIES = 5


@dataclass(frozen=True, slots=True)
class Int8:
    """Computed in int8, by ONNX Runtime."""

    images: int = 96
    """Training images on which the ranges of the maps are found."""
    seed: int = 1

    suffix = "int8"

    @property
    def title(self) -> str:
        """What it is called in the table of the result."""
        return f"computed in int8 (ONNX Runtime), ranges from {self.images} training images"

    def check(self, bundle: Bundle) -> None:
        """Raise BundleError where a package is missing."""
        try:
            import onnx  # noqa: F401, PLC0415 # an extra
            import onnxruntime  # noqa: F401, PLC0415 # as above
        except ModuleNotFoundError as error:
            advice = "pip install -c constraints.txt 'hybridmed-gateway[onnx,training]'"
            raise BundleError(f"{error.name} is not installed: {advice}") from error

    def write(self, work: Work) -> None:
        """Write graphs and heads, and bundle.toml."""
        bundle = work.bundle
        network = load_network(bundle, torch.device("cpu"))
        images = load_part(bundle, read_config(bundle), work.data_dir, Part.TRAINING, work.report)
        views = shown_views(network, images, bundle, self.images, self.seed)
        with tempfile.TemporaryDirectory(dir=work.folder) as scratch:
            graphs = quantised(network, views, bundle.projection.size, Path(scratch))
        work.weights.write_bytes(save_graph_network(network, *graphs))
        work.describe(ENCODING)


@dataclass(frozen=True, slots=True)
class Int8Weights:
    """Weights stored in int8; the network computes in float32."""

    suffix = "int8-weights"
    title = "int8 weights, one symmetric scale per output channel; computed in float32"

    def check(self, bundle: Bundle) -> None:
        """Pass: every network has weights."""

    def write(self, work: Work) -> None:
        """Write the quantised weights, and bundle.toml."""
        save_quantised_weights(load_network(work.bundle, torch.device("cpu")), work.weights)
        work.describe(ENCODINGS[1])


def shown_views(network: HybridMedNet, images: Images, bundle: Bundle, count: int, seed: int) -> Tensor:
    """Return (N, 1, size, size): what the network is shown of `count` images, whole and cut to the lungs."""
    views: list[Tensor] = []
    size = bundle.projection.size

    def keep(_trunk: object, given: tuple[Tensor, ...]) -> None:
        if given[0].shape[-1] == size:  # not the smaller scales
            views.append(given[0].detach().clone())

    chosen = np.sort(np.random.default_rng(seed).permutation(len(images))[:count])
    hook = network.backbone.register_forward_pre_hook(keep)
    try:
        for index in chosen:
            grey: NDArray[np.float32] = images.grey[index : index + 1].astype(np.float32) / np.float32(255)
            look(network, grey, [float(images.aspects[index])], bundle.projection)
    finally:
        hook.remove()
    return torch.cat(views)


def quantised(network: HybridMedNet, views: Tensor, size: int, scratch: Path) -> tuple[bytes, bytes]:
    """Return the graphs of features and of segmentation in int8, with those operators with which each is fastest.

    Parameters
    ----------
    views
        (N, 1, size, size) images on which the ranges are found.
    scratch
        An empty folder.

    Raises
    ------
    BundleError
        The network cannot be written as graphs.
    """
    features, segmentation = exported(network, size)

    def images(shown: Tensor) -> Iterator[dict[str, Tensor]]:
        return ({IMAGE: batch} for batch in _batches(shown))

    def levels(shown: Tensor) -> Iterator[dict[str, Tensor]]:
        for batch in _batches(shown):
            with torch.no_grad():
                found = network.features(batch)
            yield {f"level{index}": level for index, level in enumerate(found)}

    return _fastest(features, images, views, scratch), _fastest(segmentation, levels, views, scratch)


def _fastest(
    graph: bytes, inputs: Callable[[Tensor], Iterator[dict[str, Tensor]]], views: Tensor, scratch: Path
) -> bytes:
    """Return a graph in int8, with the choice of operators with which it is fastest on one image and on several."""
    few = views[:_BATCH]
    timed = list(next(inputs(few)).values())

    def took_s(operators: Sequence[str]) -> float:
        run = Graph(_in_int8(graph, operators, _Reader(inputs(few)), scratch), scratch)
        return _least_s(run, [value[:1] for value in timed]) + _least_s(run, timed) / len(few)

    return _in_int8(graph, min(_CHOICES, key=took_s), _Reader(inputs(views)), scratch)


def _least_s(run: Graph, values: Sequence[Tensor]) -> float:
    """Return the least of some tries, seconds: other work on the machine only ever adds."""
    took = []
    for _ in range(1 + _TRIES):
        began = time.perf_counter()
        run(values)
        took.append(time.perf_counter() - began)
    return min(took)


def _batches(views: Tensor) -> Iterator[Tensor]:
    return (views[start : start + _BATCH] for start in range(0, len(views), _BATCH))


class _Reader:
    """Shows a graph its calibration inputs, as ONNX Runtime asks for them."""

    def __init__(self, inputs: Iterator[dict[str, Tensor]]) -> None:
        self._inputs = inputs

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        """Return the next inputs by name, None after the last."""
        values = next(self._inputs, None)
        return None if values is None else {name: value.contiguous().numpy() for name, value in values.items()}


def _in_int8(graph: bytes, operators: Sequence[str], reader: _Reader, scratch: Path) -> bytes:
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static  # noqa: PLC0415 # an extra
    from onnxruntime.quantization.shape_inference import quant_pre_process  # noqa: PLC0415 # as above

    plain, prepared, made = (scratch / f"{name}.onnx" for name in ("plain", "prepared", "made"))
    plain.write_bytes(graph)
    with _without_advice():
        quant_pre_process(str(plain), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(made),
            reader,
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(operators),
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
    return made.read_bytes()


@contextmanager
def _without_advice() -> Iterator[None]:
    """Keep what ONNX Runtime advises, on the root logger, out of the operator's log."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
