"""A trunk of shifted windows with four stages, from torchvision's blocks.

Liu et al., "Swin Transformer: Hierarchical Vision Transformer using Shifted Windows", ICCV 2021.
"""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.models.swin_transformer import SwinTransformer

from inference.networks.parts import HEAD_WIDTH, SWIN_DEPTHS


class SwinBackbone(nn.Module):
    """Feature maps at strides 4, 8, 16 and 32 of a one-channel image.

    Parameters
    ----------
    name
        'swin_t' has the depths of Swin-T; 'swin_1' one block per stage.
    width
        Channels of the first stage, a multiple of `HEAD_WIDTH`. 96 gives Swin-T.
    """

    strides = (4, 8, 16, 32)

    def __init__(self, name: str, width: int) -> None:
        super().__init__()
        depths = SWIN_DEPTHS[name]
        whole = SwinTransformer(
            patch_size=[4, 4],
            embed_dim=width,
            depths=list(depths),
            num_heads=[(width // HEAD_WIDTH) << stage for stage in range(len(depths))],
            window_size=[7, 7],
            num_classes=1,
        )
        whole.features[0][0] = nn.Conv2d(1, width, kernel_size=4, stride=4)
        self.layers = whole.features  # embedding, then stages with a merging of 2 x 2 patches between them
        self.channels = tuple(width << stage for stage in range(len(depths)))
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for channels in self.channels)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the four stages' features, finest first."""
        features = image
        stages = []
        for index, layer in enumerate(self.layers):
            features = layer(features)  # (B, Y/stride, X/stride, C)
            if index % 2:
                normed = self.norms[index // 2](features)
                stages.append(normed.permute(0, 3, 1, 2).contiguous())  # (B, C, Y/stride, X/stride)
        return stages
