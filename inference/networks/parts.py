"""What the `[network]` table may name, told without torch; the modules of the parts hold to it."""

from __future__ import annotations

RESIDUAL_DEPTHS = {
    "resnet10": (1, 1, 1, 1),
    "resnet18": (2, 2, 2, 2),
    "resnet34": (3, 4, 6, 3),
    "resnet50": (3, 4, 6, 3),
}
"""Blocks of each stage of the residual trunks."""
BOTTLENECKS = ("resnet50",)
"""Those whose blocks have three convolutions; the blocks of the others have two."""
PRUNABLE = {name: sum(depths) for name, depths in RESIDUAL_DEPTHS.items() if name not in BOTTLENECKS}
"""Trunks of blocks with two convolutions, and how many blocks each has."""
SWIN_DEPTHS = {"swin_t": (2, 2, 6, 2), "swin_1": (1, 1, 1, 1)}
"""Blocks of each stage of the trunks of shifted windows."""
HEAD_WIDTH = 32
"""Channels of an attention head of theirs (Liu et al., ICCV 2021, section 3.3)."""
EFFICIENTNET_BACKBONES = ("efficientnet_b0",)
HRNET_BACKBONES = ("hrnet",)
BACKBONES = (*RESIDUAL_DEPTHS, *SWIN_DEPTHS, *EFFICIENTNET_BACKBONES, *HRNET_BACKBONES)

ATTENTION_NAMES = ("none", "se", "cbam", "sca", "se+cbam", "mixed")
"""The keys of `inference.networks.scale_attention.ATTENTIONS`."""
FUSION_NAMES = ("adaptive", "gap", "channel", "spatial", "hybrid")
"""The keys of `inference.networks.fusion.FUSIONS`."""
CONVOLUTION_NAMES = ("hybrid", "full")
"""The keys of `inference.networks.hybrid_convolution.CONVOLUTIONS`."""
