"""The `[network]` table of a bundle for projection images: which parts, and how large."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from inference.networks.fields import in_fields
from inference.networks.parts import ATTENTION_NAMES, BACKBONES, FUSION_NAMES, HEAD_WIDTH, PRUNABLE, SWIN_DEPTHS

_CHANNEL_STEP = 8
"""With 4 channels in channels-last layout the CPU convolutions of torch 2.15 write past their buffers in backward."""
_MOST_EXPERTS = 16
_MOST_INPUTS = 2
FREE = "free"


@dataclass(frozen=True, slots=True)
class HybridMedNetConfig:
    """The `[network]` table."""

    backbone: str = "resnet18"
    """One of `inference.networks.parts.BACKBONES`."""
    width: int = 64
    """Channels of the backbone's stem; of 'swin_…' those of its first stage, of 'hrnet' those of its finest branch."""
    inner: tuple[int, ...] = ()
    """Channels inside each block of a trunk that was pruned (`hybridmed compress --method pruned`)."""
    scales: tuple[float, ...] = (1.0, 0.75, 0.5)
    """The image pyramid; one scale alone: none."""
    attention: str = "cbam"
    """One of `inference.networks.parts.ATTENTION_NAMES`."""
    alignment: bool = False
    """Whether the maps of the smaller scales are aligned with the first's before fusion."""
    fusion: str = "adaptive"
    """One of `inference.networks.parts.FUSION_NAMES`."""
    local_global: bool = False
    """Whether places are mixed with the image's mean features after fusion."""
    dynamic_kernels: int = 0
    """Expert kernels of a dynamic convolution after fusion; 0: no such convolution."""
    experts: int = 0
    """Experts of the classifying heads; 0: one linear layer each."""
    hierarchy: bool | str = True
    """Whether the classes are scored along the label tree; else by one softmax over the fine ones. 'free': by that one,
    and for `[training.loss]` consistency by another over the coarse ones."""
    inputs: int = 1
    """2: a second, registered image is asked by cross-scale attention."""
    checkpointing: bool = False
    """Whether training computes the trunk twice rather than keep what its backward pass needs (Chen et al., 2016)."""
    channels: int = 96
    """Width of the pyramid."""
    decoder_width: int = 48
    dropout: float = 0.2

    @classmethod
    def from_table(cls, table: Mapping[str, object]) -> HybridMedNetConfig:
        """Read the table; raises ValueError naming the field that does not fit."""
        config = in_fields(cls, table)
        config.check()
        return config

    def check(self) -> None:
        """Raise ValueError naming the field that does not fit."""
        for field, known in (("backbone", BACKBONES), ("attention", ATTENTION_NAMES), ("fusion", FUSION_NAMES)):
            if getattr(self, field) not in known:
                raise ValueError(f"network.{field}: {getattr(self, field)!r} is none of {', '.join(known)}")
        if self.hierarchy not in (True, False, FREE):
            raise ValueError(f"network.hierarchy: {self.hierarchy!r} is none of true, false, {FREE!r}")
        if not self.scales or self.scales[0] != 1 or not all(0 < scale <= 1 for scale in self.scales):
            raise ValueError(f"network.scales: the first must be 1 and all within 0 and 1, is {list(self.scales)}")
        for field in ("width", "channels", "decoder_width"):
            if (width := getattr(self, field)) <= 0 or width % _CHANNEL_STEP:
                raise ValueError(f"network.{field}: must be a multiple of {_CHANNEL_STEP}, is {width}")
        blocks = PRUNABLE.get(self.backbone, 0)
        is_odd = any(each <= 0 or each % _CHANNEL_STEP for each in self.inner)
        if self.inner and (len(self.inner) != blocks or is_odd):
            taken = f"{self.backbone} takes {blocks} multiples of {_CHANNEL_STEP}"
            raise ValueError(f"network.inner: {taken}, is {list(self.inner)}")
        if self.backbone in SWIN_DEPTHS and self.width % HEAD_WIDTH:
            raise ValueError(f"network.width: must be a multiple of {HEAD_WIDTH} for {self.backbone}, is {self.width}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"network.dropout: must lie within 0 and 1, is {self.dropout}")
        for field, least in (("dynamic_kernels", 0), ("experts", 0), ("inputs", 1)):
            most = _MOST_INPUTS if field == "inputs" else _MOST_EXPERTS
            if not least <= (value := getattr(self, field)) <= most:
                raise ValueError(f"network.{field}: must lie within {least} and {most}, is {value}")
