"""A network as a GPU serves it best: maps in half the bits, their launches recorded once and repeated together.

At batch 1 a GPU computes the some hundred small kernels of a network faster than a host launches them. Recorded as a
CUDA graph they are launched as one (Gray, "Getting Started with CUDA Graphs", NVIDIA 2019). A recording holds for one
shape of its inputs: batches are filled up with zeros to the next of a few sizes. Convolutions in float16 run on tensor
cores (Micikevicius et al., ICLR 2018; for evaluation no scaling is needed).

Heads, calibration, guards and Grad-CAM stay as they are, in float32. A recording is compared with what it was taken
of before it is used; that the network still answers as it was evaluated is what `self_test` tells.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn

from inference.errors import DeviceError
from inference.networks.hybridmednet import HybridMedNet

SIZES = (1, 2, 4, 8, 16)
"""Of batches that are recorded; a larger one is not taken."""
_WARM_UPS = 3
"""Calls before the recording: libraries choose their algorithms and allocate in the first."""
_TOLERANCE = 1e-2
"""Of the largest number, between a recording and what it was taken of: the same kernels, which need not round alike."""

Run: TypeAlias = Callable[[Sequence[Tensor]], list[Tensor]]
"""Tensors in and out, batch first; it decides nothing by their values."""


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """Buffers, and what computes the outputs of what stands in the inputs."""

    inputs: list[Tensor]
    outputs: list[Tensor]
    again: Callable[[], None]


Record: TypeAlias = Callable[[Run, list[Tensor]], Recording]
"""Takes a recording over buffers for the inputs."""


def cuda_graph(run: Run, inputs: list[Tensor]) -> Recording:
    """Record by a CUDA graph."""
    aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch leaves it without types
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(_WARM_UPS):
            run(inputs)
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    # Other threads of a worker use the device, too; only what this one does would spoil the recording.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        outputs = run(inputs)
    return Recording(inputs, outputs, graph.replay)


class Recorded:
    """A function of tensors that is recorded at the first call of each size, and repeated from then on.

    Parameters
    ----------
    run
        What is recorded.
    record
        How.
    """

    def __init__(self, run: Run, record: Record) -> None:
        self._run, self._record = run, record
        self._recordings: dict[tuple[torch.Size, ...], Recording] = {}

    def __call__(self, values: Sequence[Tensor]) -> list[Tensor]:
        """Return the outputs for at most `SIZES[-1]` images; they are the caller's own.

        Raises
        ------
        DeviceError
            The recording gives something else than what it was taken of.
        """
        count = len(values[0])
        size = next((size for size in SIZES if size >= count), None)
        if size is None:
            raise ValueError(f"{count} images at once, at most {SIZES[-1]} are taken")
        shapes = tuple(torch.Size((size, *value.shape[1:])) for value in values)
        with torch.inference_mode():  # the buffers are the same ones, whoever calls
            recording = self._recordings.get(shapes) or self._recorded(values, shapes)
            _fill(recording, values)
            recording.again()
            given = [output[:count] for output in recording.outputs]
        return [output.clone() for output in given]

    def _recorded(self, values: Sequence[Tensor], shapes: tuple[torch.Size, ...]) -> Recording:
        """Return a new recording, once it has given what it was taken of."""
        buffers = [_buffer(value, shape) for value, shape in zip(values, shapes, strict=True)]
        recording = self._record(self._run, buffers)
        _fill(recording, values)
        recording.again()
        _check(recording.outputs, self._run(recording.inputs))
        self._recordings[shapes] = recording
        return recording


class RecordedNetwork(HybridMedNet):
    """The maps of a network in another precision, recorded; its heads.

    Parameters
    ----------
    network
        In evaluation mode, on its device; it is kept for what needs gradients by the image.
    precision
        Of the maps.
    record
        How they are recorded.
    """

    def __init__(
        self, network: HybridMedNet, precision: torch.dtype = torch.float16, record: Record = cuda_graph
    ) -> None:
        nn.Module.__init__(self)  # none of the parts that the recordings stand for
        self.scales, self.inputs, self.is_checkpointing = network.scales, network.inputs, False
        self.described_width, self.heads = network.described_width, network.heads
        self._exact = network
        self._less = copy.deepcopy(network).to(precision)
        self._record, self._precision = record, precision
        self._features = Recorded(self._compute_features, record)
        self._segmentations: dict[tuple[int, ...], Recorded] = {}
        self.eval()

    def scale_features(self, image: Tensor) -> list[list[Tensor]]:
        """Return what the network itself gives."""
        return self._exact.scale_features(image)

    def features(self, image: Tensor) -> list[Tensor]:
        """Return the fused levels of (B, inputs, Y, X) images; where gradients are asked for, from the network."""
        if image.requires_grad and torch.is_grad_enabled():
            return self._exact.features(image)
        return self._features([image])

    def segment(self, levels: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        """Return (B, segmentation classes, *size) scores from fused levels."""
        wanted = tuple(int(side) for side in size)
        if wanted not in self._segmentations:
            self._segmentations[wanted] = Recorded(lambda given: [self._compute_scores(given, wanted)], self._record)
        (scores,) = self._segmentations[wanted](levels)
        return scores

    def _compute_features(self, given: Sequence[Tensor]) -> list[Tensor]:
        return [level.float() for level in self._less.features(given[0].to(self._precision))]

    def _compute_scores(self, given: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        return self._less.segment([level.to(self._precision) for level in given], size).float()


def _fill(recording: Recording, values: Sequence[Tensor]) -> None:
    for buffer, value in zip(recording.inputs, values, strict=True):
        buffer[: len(value)].copy_(value)
        buffer[len(value) :].zero_()  # nothing of former images


def _buffer(value: Tensor, shape: torch.Size) -> Tensor:
    order = torch.channels_last if value.ndim == 4 else torch.contiguous_format  # noqa: PLR2004 # (B, C, Y, X)
    return torch.zeros(shape, dtype=value.dtype, device=value.device).contiguous(memory_format=order)


def _check(said: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    for one, other in zip(said, expected, strict=True):
        gap = float((one - other).abs().max())
        if not gap <= _TOLERANCE * max(1.0, float(other.abs().max())):
            raise DeviceError(f"a recording is {gap:.3g} off what it was taken of")
