"""A HybridMedNet whose maps ONNX Runtime computes in int8; what follows them stays torch's.

The weights file holds the heads as numbers and two ONNX graphs as bytes, so that one digest pins all of it. A graph is
handed over in memory: it can name no further file, and no library of operators beyond ONNX's own is ever registered.
Heads, calibration and guards are computed as for any other network, and so is Grad-CAM: it asks for the gradient of a
class by the fused levels, which goes through the heads alone (`inference.saliency`). Gradients by the image are not
to be had. ONNX Runtime computes on the CPU, wherever the images come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from inference.bundle import Bundle
from inference.errors import BundleError
from inference.foreign.onnx_file import open_session, run_session
from inference.networks.hybridmednet import HybridMedNet
from inference.pinned import read_pinned

ENCODING = "int8-onnx"
_HEADS = "heads."
_FEATURES, _SEGMENTATION = "graph.features", "graph.segmentation"
_LARGEST = 512 << 20
"""Of a weights file with graphs, bytes: it is read into memory whole, beside what ONNX Runtime makes of it."""


class Graph:
    """One graph, opened.

    Parameters
    ----------
    content
        The ONNX file.
    file
        What it is named by in errors.
    """

    def __init__(self, content: bytes, file: Path) -> None:
        self._session = open_session(content, file, torch.device("cpu"))
        self._inputs = [entry.name for entry in self._session.get_inputs()]
        self._file = file

    def __call__(self, values: Sequence[Tensor]) -> list[Tensor]:
        """Return the outputs, on the device of the inputs; raises what `run_session` raises."""
        if len(values) != len(self._inputs):
            raise BundleError(f"{self._file}: the graph takes {len(self._inputs)} inputs, not {len(values)}")
        arrays = [value.detach().float().contiguous().cpu().numpy() for value in values]
        given = run_session(self._session, self._file, dict(zip(self._inputs, arrays, strict=True)))
        return [torch.from_numpy(array).to(values[0].device) for array in given]


class GraphNetwork(HybridMedNet):
    """Maps from graphs, heads from a network.

    Parameters
    ----------
    network
        Whose heads are kept; its other parts are not.
    features
        (B, 1, size, size) images in, the fused levels out, finest first.
    segmentation
        Those levels in, (B, segmentation classes, size, size) scores out.
    """

    def __init__(self, network: HybridMedNet, features: Graph, segmentation: Graph) -> None:
        nn.Module.__init__(self)  # none of the parts that the graphs stand for
        self.scales, self.inputs, self.is_checkpointing = network.scales, network.inputs, False
        self.described_width, self.heads = network.described_width, network.heads
        self._features, self._segmentation = features, segmentation

    def scale_features(self, image: Tensor) -> list[list[Tensor]]:
        """Raise BundleError: the graph gives fused levels only, and learns nothing."""
        raise BundleError(f"weights.encoding: {ENCODING!r} serves; it is neither trained nor taken apart")

    def features(self, image: Tensor) -> list[Tensor]:
        """Return the fused levels of (B, 1, Y, X) images; raises BundleError where gradients are asked for."""
        if image.requires_grad and torch.is_grad_enabled():
            raise BundleError(f"weights.encoding: {ENCODING!r} gives no gradients by the image: take the original")
        return self._features([image])

    def segment(self, levels: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        """Return (B, segmentation classes, *size) scores; raises BundleError where the graph has another size."""
        scores = self._segmentation(levels)
        if len(scores) != 1:
            raise BundleError(f"graph.segmentation gives {len(scores)} outputs, expected one")
        if list(scores[0].shape[-2:]) != list(size):
            raise BundleError(f"the graph outlines {list(scores[0].shape[-2:])} pixels, not {list(size)}")
        return scores[0]


def save_graph_network(network: HybridMedNet, features: bytes, segmentation: bytes) -> bytes:
    """Return the weights file of a network's heads and the graphs of the rest of it."""
    heads = {_HEADS + name: tensor.detach().cpu().contiguous() for name, tensor in network.heads.state_dict().items()}
    return save({**heads, _FEATURES: _as_tensor(features), _SEGMENTATION: _as_tensor(segmentation)})


def load_graph_network(bundle: Bundle, network: HybridMedNet, device: torch.device) -> GraphNetwork:
    """Return the bundle's network, ready to evaluate.

    Parameters
    ----------
    network
        Of the bundle's `[network]` table, with any weights.

    Raises
    ------
    BundleError
        The file does not hold what it should, the graphs give other shapes than the network of bundle.toml, or ONNX
        Runtime is not installed.
    """
    file = bundle.weights_path
    try:
        if (held := file.stat().st_size) > _LARGEST:
            raise BundleError(f"{file}: holds {held} bytes, at most {_LARGEST} are read")
        state = load(read_pinned(file, bundle.algorithm.weights_digest))
        graphs = [state.pop(name).numpy().tobytes() for name in (_FEATURES, _SEGMENTATION)]
        network.heads.load_state_dict({name.removeprefix(_HEADS): tensor.float() for name, tensor in state.items()})
    except (SafetensorError, OSError, RuntimeError, KeyError) as error:
        raise BundleError(f"{file}: does not fit the network of bundle.toml: {error}") from error
    features, segmentation = (Graph(graph, file) for graph in graphs)
    run = GraphNetwork(network, features, segmentation).to(device).eval().requires_grad_(False)
    _check_shapes(run, network.to(device).eval(), bundle, device)
    return run


@torch.no_grad()
def _check_shapes(run: GraphNetwork, network: HybridMedNet, bundle: Bundle, device: torch.device) -> None:
    """Raise BundleError where the graphs make other shapes of an image than the network that they stand for."""
    size = bundle.projection.size
    image = torch.zeros(1, 1, size, size, device=device)
    levels = run.features(image)
    _refuse_other(bundle, "features", levels, network.features(image))
    _refuse_other(bundle, "segmentation", [run.segment(levels, (size, size))], [network.segment(levels, (size, size))])


def _refuse_other(bundle: Bundle, graph: str, given: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    shapes, wanted = ([list(each.shape) for each in tensors] for tensors in (given, expected))
    if shapes != wanted:
        raise BundleError(f"{bundle.weights_path}: graph.{graph} gives {shapes}, expected {wanted}")


def _as_tensor(content: bytes) -> Tensor:
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)
