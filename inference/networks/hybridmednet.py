"""HybridMedNet: an image at several scales, a pyramid each, fused, classified in a hierarchy and segmented."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor, nn

from inference.networks.attention import ScaleAttention
from inference.networks.backbone import BACKBONES, Backbone
from inference.networks.decoder import SegmentationDecoder
from inference.networks.fusion import AdaptiveFusion
from inference.networks.heads import ClassLogits, HierarchicalHeads
from inference.networks.pyramid import FeaturePyramid, at_scale

_CHANNEL_STEP = 8
"""With 4 channels in channels-last layout the CPU convolutions of torch 2.15 write past their buffers in backward."""


@dataclass(frozen=True, slots=True)
class HybridMedNetConfig:
    """The `[network]` table of a bundle."""

    backbone: str = "resnet18"
    width: int = 64
    """Channels of the backbone's stem."""
    scales: tuple[float, ...] = (1.0, 0.75, 0.5)
    channels: int = 96
    """Width of the pyramid."""
    decoder_width: int = 48
    dropout: float = 0.2

    @classmethod
    def from_table(cls, table: Mapping[str, object]) -> HybridMedNetConfig:
        """Read the table; raises ValueError naming the field that does not fit."""
        given = {key: value for key, value in table.items() if key != "kind"}
        if unknown := sorted(given.keys() - cls.__dataclass_fields__.keys()):
            raise ValueError(f"network.{unknown[0]}: unknown field")
        if isinstance(scales := given.get("scales"), list):
            given["scales"] = tuple(scales)
        config = cls(**given)  # type: ignore[arg-type]  # values of a TOML table; checked below
        if config.backbone not in BACKBONES:
            raise ValueError(f"network.backbone: {config.backbone!r} is none of {', '.join(BACKBONES)}")
        if not config.scales or config.scales[0] != 1 or not all(0 < scale <= 1 for scale in config.scales):
            raise ValueError("network.scales: the first must be 1 and all within 0 and 1")
        for field in ("width", "channels", "decoder_width"):
            if getattr(config, field) <= 0 or getattr(config, field) % _CHANNEL_STEP:
                raise ValueError(f"network.{field}: must be a multiple of {_CHANNEL_STEP}")
        return config


class NetworkOutput(NamedTuple):
    """What one forward pass says."""

    classes: ClassLogits
    """From the fused scales."""
    per_scale: tuple[ClassLogits, ...]
    """The same heads on each scale alone; empty outside training."""
    segmentation: Tensor
    """(B, segmentation classes, Y, X) scores; channel 0 is background."""


class HybridMedNet(nn.Module):
    """A hierarchical classifier and a segmenter over one multi-scale trunk.

    Parameters
    ----------
    config
        Sizes.
    coarse, fine
        Number of classes of each level.
    segmentation_classes
        Background included.
    """

    classified_levels = slice(1, 4)
    """Pyramid levels that the heads pool: strides 8, 16 and 32."""

    def __init__(self, config: HybridMedNetConfig, coarse: int, fine: int, segmentation_classes: int) -> None:
        super().__init__()
        self.scales = config.scales
        self.backbone = Backbone(config.backbone, config.width)
        strides = len(self.backbone.channels)
        self.pyramid = FeaturePyramid(self.backbone.channels, config.channels)
        self.attention = nn.ModuleList(ScaleAttention(config.channels) for _ in config.scales)
        self.fusion = nn.ModuleList(AdaptiveFusion(config.channels, len(config.scales)) for _ in range(strides))
        self.heads = HierarchicalHeads(config.channels, strides - 1, coarse, fine, config.dropout)
        self.decoder = SegmentationDecoder(config.channels, strides, segmentation_classes, config.decoder_width)

    def scale_features(self, image: Tensor) -> list[list[Tensor]]:
        """Return for each scale its attended pyramid levels (B, C, Y_i * scale, X_i * scale), finest first."""
        per_scale = []
        for scale, attend in zip(self.scales, self.attention, strict=True):
            levels = self.pyramid(self.backbone(at_scale(image, scale)))
            per_scale.append(attend(levels))
        return per_scale

    def fuse(self, per_scale: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        """Return the fused levels (B, C, Y_i, X_i) on the grids of the first scale."""
        by_level = zip(*per_scale, strict=True)
        return [fuse(maps) for fuse, maps in zip(self.fusion, by_level, strict=True)]

    def classify(self, levels: Sequence[Tensor]) -> ClassLogits:
        """Score the classes from fused or single-scale levels."""
        logits: ClassLogits = self.heads(levels[self.classified_levels])
        return logits

    def features(self, image: Tensor) -> list[Tensor]:
        """Return the fused levels of (B, 1, Y, X) images."""
        return self.fuse(self.scale_features(image))

    def segment(self, levels: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        """Return (B, segmentation classes, *size) scores from fused levels; channel 0 is background."""
        scores: Tensor = self.decoder(levels, size)
        return scores

    def forward(self, image: Tensor) -> NetworkOutput:
        """Evaluate (B, 1, Y, X) images."""
        per_scale = self.scale_features(image)
        fused = self.fuse(per_scale)
        alone = tuple(self.classify(levels) for levels in per_scale) if self.training else ()
        return NetworkOutput(self.classify(fused), alone, self.segment(fused, image.shape[-2:]))
