"""A narrower network of the same make that learns from the bundle's own: knowledge distillation.

It begins with the teacher's weights as far as they fit: of every layer the first channels, which are the ones that the
layers after it read (weight subcloning, Samragh et al., 2023, without the choice of channels). Where a layer reads or
makes several maps side by side, that is the first channels of each of them. What is lost by that is learnt anew from
the images and the teacher's answers (`inference.training.distillation`).
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from inference.bundle import ENCODINGS, Bundle
from inference.errors import BundleError
from inference.networks.config import HybridMedNetConfig
from inference.networks.hybridmednet import HybridMedNet
from inference.networks.parts import HEAD_WIDTH, SWIN_DEPTHS
from inference.networks.weights import build_network, load_network, save_weights
from inference.training.config import read_config
from inference.training.loop import LoopConfig
from inference.training.making import Work
from inference.training.teaching import taught

_STEP = 8
_POOLED = 2 * (HybridMedNet.classified_levels.stop - HybridMedNet.classified_levels.start)
_SIDE_BY_SIDE = (
    (re.compile(r"heads\..*weight"), 1, _POOLED),  # means, then maxima, of each level
    (re.compile(r"alignment\..*\.offsets\.weight"), 1, 2),
    (re.compile(r".*\.(qkv\.|in_proj_)(weight|bias)"), 0, 3),
    (re.compile(r"backbone\.layers\.\d+\.reduction\.weight"), 1, 4),  # Swin's merging of four places
    (re.compile(r"backbone\.layers\.\d+\.norm\.(weight|bias)"), 0, 4),
)
"""Names of tensors, the axis along which they hold several maps, and how many."""


@dataclass(frozen=True, slots=True)
class Distilling:
    """How small the student is, and how long it learns."""

    share: float = 0.4
    """Largest share of the original's parameters."""
    epochs: int | None = None
    """In one cycle; None takes the cycles of the bundle's `[training]`."""
    network: Mapping[str, object] = field(default_factory=dict)
    """Fields of the student's `[network]` table that are given; of the others the widths are scaled down."""
    seed: int = 1

    suffix = "distilled"

    @property
    def title(self) -> str:
        """What it is called in the table of the result."""
        length = "as many epochs as the original" if self.epochs is None else f"{self.epochs} epochs"
        return f"a narrower network, {length} of learning from the original"

    def check(self, bundle: Bundle) -> None:
        """Raise BundleError where no student of the bundle is that small."""
        student_table(bundle, self.share, self.network)

    def write(self, work: Work) -> None:
        """Train the student; write its weights and bundle.toml."""
        table = student_table(work.bundle, self.share, self.network)
        torch.manual_seed(self.seed)
        student = build_network(replace(work.bundle, network=table))
        inherit(student, load_network(work.bundle, torch.device("cpu")))
        save_weights(taught(student, work, self._loop(work.bundle), self.seed, table), work.weights)
        work.describe(ENCODINGS[0], table)

    def _loop(self, bundle: Bundle) -> LoopConfig:
        loop = read_config(bundle).loop
        if self.epochs is None:
            return loop
        return replace(loop, cycles=(self.epochs,), small_epochs=min(loop.small_epochs, self.epochs // 2))


def parameters(bundle: Bundle) -> int:
    """Return the number of parameters of the bundle's network."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build_network(bundle).parameters())


def student_table(bundle: Bundle, share: float, given: Mapping[str, object]) -> dict[str, object]:
    """Return the `[network]` table of the largest student with at most `share` of the bundle's parameters.

    Raises
    ------
    BundleError
        There is none, with the share of the smallest; or the table does not allow a field that is given.
    """
    if not 0 < share < 1:
        raise BundleError(f"the share of the parameters must lie between 0 and 1, not {share}")
    whole = parameters(bundle)

    def share_of(table: Mapping[str, object]) -> float:
        return parameters(replace(bundle, network=table)) / whole

    best: dict[str, object] | None = None
    least, most = 1.0, 0.0
    for tables in _narrower(bundle.network, given):
        least = share_of(tables[-1])
        if least > share:
            continue
        place = bisect_left(tables, True, key=lambda table: share_of(table) <= share)
        if (found := share_of(tables[place])) > most:
            best, most = tables[place], found
        elif place == 0:
            break  # narrower trunks have less still
    if best is None:
        asked = f"at most {share:.1%} of the original's parameters"
        raise BundleError(f"{bundle.name}: the smallest student that its table allows has {least:.1%}, not {asked}")
    return best


def _narrower(network: Mapping[str, object], given: Mapping[str, object]) -> Iterator[list[dict[str, object]]]:
    """Yield for each width of the trunk, wider ones first, tables with ever narrower pyramids and decoders."""
    whole = {**{key: value for key, value in network.items() if key != "inner"}, **given}  # of other widths
    is_swin = whole.get("backbone") in SWIN_DEPTHS
    for width in _widths(whole, "width", HEAD_WIDTH if is_swin else _STEP, given):
        channels = _widths(whole, "channels", _STEP, given)
        decoders = _widths(whole, "decoder_width", _STEP, given)
        last = len(decoders) - 1
        yield [
            {
                **whole,
                "width": width,
                "channels": each,
                "decoder_width": decoders[last * place // max(len(channels) - 1, 1)],
            }
            for place, each in enumerate(channels)
        ]


def _widths(table: Mapping[str, object], name: str, step: int, given: Mapping[str, object]) -> list[int]:
    """Return what a field may be, wider first; where it is given that alone."""
    full = int(str(table.get(name, getattr(HybridMedNetConfig(), name))))
    return [full] if name in given else [*range(full, 0, -step)]


def inherit(student: nn.Module, teacher: nn.Module) -> None:
    """Give the student the first channels of each of the teacher's tensors that has its number of axes."""
    known = teacher.state_dict()
    with torch.no_grad():
        for name, tensor in student.state_dict().items():
            source = known.get(name)
            if source is None or source.ndim != tensor.ndim:
                continue
            for ours, theirs in zip(_apart(name, tensor), _apart(name, source), strict=True):
                common = tuple(slice(0, min(one, other)) for one, other in zip(ours.shape, theirs.shape, strict=True))
                ours[common] = theirs[common].to(ours.dtype)


def _apart(name: str, tensor: Tensor) -> Sequence[Tensor]:
    """Return views of the parts of a tensor that belong to maps of their own."""
    for pattern, axis, maps in _SIDE_BY_SIDE:
        if pattern.fullmatch(name):
            return tensor.chunk(maps, dim=axis)
    return (tensor,)
