"""HybridMedNet: an image at several scales, a pyramid each, fused, classified in a hierarchy and segmented."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from inference.networks.alignment import Alignment
from inference.networks.backbone import build_backbone
from inference.networks.config import FREE, HybridMedNetConfig
from inference.networks.cross_scale_attention import CrossScaleAttention
from inference.networks.decoder import SegmentationDecoder
from inference.networks.dynamic_convolution import DynamicConvolution
from inference.networks.fusion import FUSIONS
from inference.networks.heads import ClassLogits, FlatHead, FreeHeads, HeadsOutput, HierarchicalHeads, pooled
from inference.networks.local_global import LocalGlobalFusion
from inference.networks.pyramid import FeaturePyramid, at_scale
from inference.networks.scale_attention import ATTENTIONS

_ASKED = 2
"""The coarsest levels, strides 16 and 32, ask the second input: attention grows with the square of the places."""


class NetworkOutput(NamedTuple):
    """What one forward pass says."""

    classes: ClassLogits
    """From the fused scales."""
    per_scale: tuple[ClassLogits, ...]
    """The same heads on each scale alone; empty outside training."""
    segmentation: Tensor
    """(B, segmentation classes, Y, X) scores; channel 0 is background."""
    described: Tensor | None = None
    """(B, described_width) what the heads saw; None outside training."""
    coarse_alone: Tensor | None = None
    """(B, coarse classes) of free heads' coarse softmax; None of others, and outside training."""
    mixtures: tuple[Tensor, ...] = ()
    """(B, experts) of each head of several experts, from the fused scales; empty outside training."""


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
    parents
        Coarse class of each fine class; needed where `config.hierarchy` is False or 'free'.
    """

    classified_levels = slice(1, 4)
    """Pyramid levels that the heads pool: strides 8, 16 and 32."""

    def __init__(
        self,
        config: HybridMedNetConfig,
        coarse: int,
        fine: int,
        segmentation_classes: int,
        parents: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.scales, self.inputs, self.is_checkpointing = config.scales, config.inputs, config.checkpointing
        width = config.channels
        self.backbone = build_backbone(config.backbone, config.width, config.inner)
        strides = len(self.backbone.channels)
        self.pyramid = FeaturePyramid(self.backbone.channels, width)
        self.attention = nn.ModuleList(ATTENTIONS[config.attention](width) for _ in config.scales)
        others = len(config.scales) - 1 if config.alignment else 0
        self.alignment = nn.ModuleList(nn.ModuleList(Alignment(width) for _ in range(strides)) for _ in range(others))
        self.fusion = nn.ModuleList(FUSIONS[config.fusion](width, len(config.scales)) for _ in range(strides))
        self.refinement = nn.ModuleList(_refinement(config) for _ in range(strides))
        self.cross = nn.ModuleList(CrossScaleAttention(width) for _ in range(_ASKED) if config.inputs > 1)
        self.described_width = 2 * (strides - 1) * width
        self.heads = _heads(config, self.described_width, (coarse, fine), parents)
        self.decoder = SegmentationDecoder(width, strides, segmentation_classes, config.decoder_width)

    def scale_features(self, image: Tensor) -> list[list[Tensor]]:
        """Return for each scale its attended pyramid levels (B, C, Y_i * scale, X_i * scale), finest first."""
        per_scale = []
        for scale, attend in zip(self.scales, self.attention, strict=True):
            levels = self.pyramid(self._trunk(at_scale(image, scale)))
            per_scale.append(attend(levels))
        return per_scale

    def _trunk(self, image: Tensor) -> list[Tensor]:
        if self.is_checkpointing and self.training:
            return cast(list[Tensor], checkpoint(self.backbone, image, use_reentrant=False))
        return cast(list[Tensor], self.backbone(image))

    def fuse(self, per_scale: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        """Return the fused levels (B, C, Y_i, X_i) on the grids of the first scale."""
        aligned = [per_scale[0], *per_scale[1:]]
        for index, aligns in enumerate(self.alignment, start=1):
            pairs = zip(cast(nn.ModuleList, aligns), per_scale[index], per_scale[0], strict=True)
            aligned[index] = [align(level, reference) for align, level, reference in pairs]
        by_level = zip(*aligned, strict=True)
        fused = [fuse(maps) for fuse, maps in zip(self.fusion, by_level, strict=True)]
        return [refine(level) for refine, level in zip(self.refinement, fused, strict=True)]

    def classify(self, levels: Sequence[Tensor]) -> ClassLogits:
        """Score the classes from fused or single-scale levels."""
        return self._said(levels).classes

    def _said(self, levels: Sequence[Tensor]) -> HeadsOutput:
        said: HeadsOutput = self.heads(levels[self.classified_levels])
        return said

    def described(self, levels: Sequence[Tensor]) -> Tensor:
        """Return (B, described_width): the pooled levels that the heads see."""
        return pooled(levels[self.classified_levels])

    def features(self, image: Tensor) -> list[Tensor]:
        """Return the fused levels of (B, inputs, Y, X) images."""
        return self._joined(image, self.fuse(self.scale_features(image[:, :1])))

    def _joined(self, image: Tensor, fused: list[Tensor]) -> list[Tensor]:
        """Return the fused levels of the first input with what the second, where there is one, says to them.

        Only its first scale is asked. Where the second input is 0 in all pixels of a place, it does not cover it.
        """
        if not self.cross:
            return fused
        second = image[:, 1:2]
        answers = self.pyramid(self._trunk(second))
        joined = fused[:-_ASKED]
        for attend, level, answer in zip(self.cross, fused[-_ASKED:], answers[-_ASKED:], strict=True):
            covered = nn.functional.adaptive_max_pool2d(second.abs(), answer.shape[-2:])[:, 0] > 0  # (B, Y_i, X_i)
            joined.append(attend(level, answer, covered))
        return joined

    def segment(self, levels: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        """Return (B, segmentation classes, *size) scores from fused levels; channel 0 is background."""
        scores: Tensor = self.decoder(levels, size)
        return scores

    def forward(self, image: Tensor) -> NetworkOutput:
        """Evaluate (B, inputs, Y, X) images."""
        if not self.training:
            fused = self.features(image)
            return NetworkOutput(self.classify(fused), (), self.segment(fused, image.shape[-2:]))
        per_scale = self.scale_features(image[:, :1])
        fused = self._joined(image, self.fuse(per_scale))
        alone = tuple(self.classify(levels) for levels in per_scale)
        scores = self.segment(fused, image.shape[-2:])
        said = self._said(fused)
        return NetworkOutput(said.classes, alone, scores, self.described(fused), said.coarse_alone, said.mixtures)


def _heads(
    config: HybridMedNetConfig, features: int, classes: tuple[int, int], parents: Sequence[int]
) -> HierarchicalHeads | FlatHead | FreeHeads:
    """Return the heads of a table for so many coarse and fine classes."""
    if config.hierarchy == FREE:
        return FreeHeads(features, parents, config.dropout, config.experts)
    if config.hierarchy:
        return HierarchicalHeads(features, *classes, config.dropout, config.experts)
    return FlatHead(features, parents, config.dropout, config.experts)


def _refinement(config: HybridMedNetConfig) -> nn.Sequential:
    """Return what a fused level goes through; nothing, where the table asks for nothing."""
    parts: list[nn.Module] = []
    if config.dynamic_kernels:
        parts += [DynamicConvolution(config.channels, config.dynamic_kernels), nn.ReLU()]
    if config.local_global:
        parts.append(LocalGlobalFusion(config.channels))
    return nn.Sequential(*parts)
