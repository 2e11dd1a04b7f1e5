"""One seam for all foreign networks: grey values in, scores of levels and segments out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn

from inference.errors import BundleError
from inference.foreign.spec import SEGMENTS, ForeignSpec, turning

Runner: TypeAlias = Callable[[Tensor], object]
"""The network itself: (B, C, ...) in; a tensor, or several in a sequence or mapping, out."""

_LEAST_PROBABILITY = 1e-7


class ForeignNetwork(nn.Module):
    """A foreign network as this project shows it images or volumes.

    Parameters
    ----------
    run
        The network; a module moves with this one, anything else sees to its device itself.
    spec
        What it is shown and gives.
    classes
        Number of classes of each output; of segments with the background.
    """

    def __init__(self, run: Runner, spec: ForeignSpec, classes: Mapping[str, int]) -> None:
        super().__init__()
        self.run = run
        self.classes = classes
        self.outputs, self.is_activated = spec.outputs, spec.is_activated
        self.order, self.flipped = turning(spec.orientation) if spec.orientation else ((), ())
        axes = [1] * (3 if spec.orientation else 2)
        self.mean = nn.Parameter(torch.tensor(spec.mean).view(1, -1, *axes), requires_grad=False)  # (1, C, ...)
        self.std = nn.Parameter(torch.tensor(spec.std).view(1, -1, *axes), requires_grad=False)

    def scores(self, values: Tensor) -> dict[str, Tensor]:
        """Return the scores before the softmax of each output.

        Parameters
        ----------
        values
            (B, 1, Y, X) or (B, 1, Z, Y, X), as `[input]` makes them.

        Returns
        -------
        (B, classes) of each level, (B, 1 + segments, ...) of the segments on the axes of `values`.

        Raises
        ------
        BundleError
            What it gives has another form.
        """
        shown = self._turned((values - self.mean) / self.std).contiguous()
        given = _tensors(self.run(shown))
        if len(given) != len(self.outputs):
            raise BundleError(f"the network gives {len(given)} tensors, network.outputs names {len(self.outputs)}")
        return {name: self._scores_of(name, tensor) for name, tensor in zip(self.outputs, given, strict=True)}

    def forward(self, values: Tensor) -> Tensor:
        """Return the (B, 1 + segments, ...) scores of the segments."""
        return self.scores(values)[SEGMENTS]

    def _scores_of(self, name: str, tensor: Tensor) -> Tensor:
        classes, spatial = self.classes[name], tensor.ndim - 2
        if spatial != (self.mean.ndim - 2 if name == SEGMENTS else 0):
            raise BundleError(f"the output {name!r} has {tensor.ndim} dimensions")
        scores = tensor.float()
        if self.is_activated:
            if bool((scores < 0).any()) or bool((scores > 1).any()):
                raise BundleError(f"the output {name!r} is no probability; is network.activation right?")
            scores = scores.clamp_min(_LEAST_PROBABILITY)
        if scores.shape[1] == 1 and classes == 2:  # noqa: PLR2004 -- one channel tells two classes
            first = 1 - scores if self.is_activated else torch.zeros_like(scores)
            scores = torch.cat([first.clamp_min(_LEAST_PROBABILITY) if self.is_activated else first, scores], dim=1)
        if scores.shape[1] != classes:
            raise BundleError(f"the output {name!r} has {scores.shape[1]} channels, bundle.toml asks for {classes}")
        scores = scores.log() if self.is_activated else scores
        return self._turned_back(scores) if spatial else scores

    def _turned(self, values: Tensor) -> Tensor:
        if not self.order:
            return values
        return values.flip([2 + axis for axis in self.flipped]).permute(0, 1, *(2 + axis for axis in self.order))

    def _turned_back(self, scores: Tensor) -> Tensor:
        if not self.order:
            return scores
        back = [self.order.index(axis) for axis in range(len(self.order))]
        return scores.permute(0, 1, *(2 + axis for axis in back)).flip([2 + axis for axis in self.flipped])


def _tensors(given: object) -> Sequence[Tensor]:
    parts = [given] if isinstance(given, Tensor) else given
    if isinstance(parts, Mapping):
        parts = list(parts.values())
    if not isinstance(parts, list | tuple) or not all(isinstance(part, Tensor) and part.ndim > 1 for part in parts):
        raise BundleError(f"the network gives {type(given).__name__}, expected tensors (B, ...)")
    return parts
