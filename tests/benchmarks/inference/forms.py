"""One network in several forms; each takes (B, 1, Y, X) images and gives the same three scores.

plain      a loop over images, eager float32: what one writes first
served     what `inference.predict` runs for each look: norms folded away, channels last, in batches
batched    channels-last, in batches, without autograd's records
half       as batched, convolutions in bfloat16
compiled   as batched (on a GPU as half) and compiled by torch; on a GPU captured as a graph
onnx       ONNX Runtime on the CPU, float32
int8       as served, with ONNX Runtime on the CPU computing the maps in int8, as `compress --method int8` has them
"""

from __future__ import annotations

import io
import tempfile
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from inference.networks import hybridmednet
from inference.networks.graph_network import Graph, GraphNetwork
from inference.networks.hybridmednet import HybridMedNet
from inference.networks.serving import as_served
from inference.training.quantisation import quantised

Scores: TypeAlias = tuple[Tensor, Tensor, Tensor]
Form: TypeAlias = Callable[[Tensor], Scores]
_OPSET = 18
_RANGED = 8
"""Images of noise on which the ranges of int8 are found: its speed is that on X-rays, its answers are not."""


class _Flat(nn.Module):
    """The network with its scores side by side."""

    def __init__(self, network: HybridMedNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Scores:
        """Return coarse, fine and segmentation scores."""
        said = self.network(images)
        return said.classes.coarse, said.classes.fine, said.segmentation


def plain(network: HybridMedNet, device: torch.device, _size: int) -> Form:
    """Loop over the images."""
    flat = _Flat(network).to(device)

    def run(images: Tensor) -> Scores:
        with torch.no_grad():
            each = [flat(image[None].to(device)) for image in images]
        coarse, fine, segmentation = (torch.cat(parts) for parts in zip(*each, strict=True))
        return coarse, fine, segmentation

    return run


def served(network: HybridMedNet, device: torch.device, _size: int) -> Form:
    """Show all images at once to the network as it serves."""
    return _running(_Flat(as_served(network.to(device))), device, nullcontext)


def batched(network: HybridMedNet, device: torch.device, _size: int) -> Form:
    """Show all images at once."""
    return _running(_Flat(network).to(device, memory_format=torch.channels_last), device, nullcontext)


def half(network: HybridMedNet, device: torch.device, _size: int) -> Form:
    """As `batched`, in bfloat16."""
    return _running(_Flat(network).to(device, memory_format=torch.channels_last), device, _half(device))


def compiled(network: HybridMedNet, device: torch.device, _size: int) -> Form:
    """Compile; each size of batch that comes is compiled once."""
    flat = _Flat(network).to(device, memory_format=torch.channels_last)
    mode = "reduce-overhead" if device.type == "cuda" else "default"
    run = torch.compile(flat, mode=mode, dynamic=False)
    return _running(run, device, _half(device) if device.type == "cuda" else nullcontext)


def onnx(network: HybridMedNet, device: torch.device, size: int) -> Form:
    """Export, and run by ONNX Runtime."""
    if device.type != "cpu":
        raise ValueError("the form onnx is for the CPU")
    import onnxruntime  # noqa: PLC0415 # the other forms need none of it

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(exported(network, size), options, ["CPUExecutionProvider"])

    def run(images: Tensor) -> Scores:
        coarse, fine, segmentation = map(torch.from_numpy, session.run(None, {"images": images.numpy()}))
        return coarse, fine, segmentation

    return run


def int8(network: HybridMedNet, device: torch.device, size: int) -> Form:
    """As `served`, in int8; a bundle in int8 as it is."""
    if device.type != "cpu":
        raise ValueError("the form int8 is for the CPU")
    if isinstance(network, GraphNetwork):
        return served(network, device, size)
    noise = torch.rand(_RANGED, 1, size, size, generator=torch.Generator().manual_seed(2))
    with tempfile.TemporaryDirectory() as scratch:
        graphs = quantised(network, noise, size, Path(scratch))
    opened = (Graph(content, Path("int8.onnx")) for content in graphs)
    return served(GraphNetwork(network, *opened).eval(), device, size)


FORMS: dict[str, Callable[[HybridMedNet, torch.device, int], Form]] = {
    "plain": plain,
    "served": served,
    "batched": batched,
    "half": half,
    "compiled": compiled,
    "onnx": onnx,
    "int8": int8,
}


def at_once(form: str, batch: int) -> int:
    """Return how many images of a batch the form shows the network together."""
    return 1 if form == "plain" else batch


def exported(network: HybridMedNet, size: int) -> bytes:
    """Return the network as ONNX, for images of one size in batches of any."""
    file = io.BytesIO()
    before, hybridmednet.at_scale = hybridmednet.at_scale, _at_scale_by_matrices
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the exporter, which traces
            torch.onnx.export(
                _Flat(network),
                (torch.zeros(2, 1, size, size),),
                file,
                input_names=["images"],
                output_names=["coarse", "fine", "segmentation"],
                dynamic_axes={name: {0: "batch"} for name in ("images", "coarse", "fine", "segmentation")},
                opset_version=_OPSET,
                dynamo=False,
            )
    finally:
        hybridmednet.at_scale = before
    return file.getvalue()


def _at_scale_by_matrices(image: Tensor, scale: float) -> Tensor:
    """Do what `pyramid.at_scale` does in a way that ONNX can say: the low pass is linear, along rows and columns."""
    if scale == 1:
        return image
    height, width = (int(side) for side in image.shape[-2:])
    return _resampling(height, scale) @ image @ _resampling(width, scale).T


def _resampling(side: int, scale: float) -> Tensor:
    """Return (round(side * scale), side): the resampling of unit impulses."""
    impulses = torch.eye(side)[None, None]  # (1, 1, side, side)
    size = [round(side * scale), side]
    return functional.interpolate(impulses, size=size, mode="bilinear", align_corners=False, antialias=True)[0, 0]


def _half(device: torch.device) -> Callable[[], AbstractContextManager[object]]:
    return lambda: torch.autocast(device.type, torch.bfloat16)


def _running(
    run: Callable[[Tensor], Scores], device: torch.device, context: Callable[[], AbstractContextManager[object]]
) -> Form:
    def shown(images: Tensor) -> Scores:
        pinned = images.pin_memory() if device.type == "cuda" else images
        moved = pinned.to(device, non_blocking=True, memory_format=torch.channels_last)
        with torch.inference_mode(), context():
            coarse, fine, segmentation = run(moved)
        return coarse.float(), fine.float(), segmentation.float()

    return shown
