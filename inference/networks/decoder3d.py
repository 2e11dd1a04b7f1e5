"""Features on coarse grids into scores per voxel.

Cicek et al., "3D U-Net: Learning Dense Volumetric Segmentation from Sparse Annotation", MICCAI 2016: up by a transposed
convolution, joined with the encoder's features of that grid, refined. The last step, from the first stage to the
voxels, is a sub-pixel convolution: Shi et al., "Real-Time Single Image and Video Super-Resolution", CVPR 2016.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from inference.networks.config3d import Stride
from inference.networks.encoder3d import ResidualBlock3d
from inference.networks.hybrid_convolution import MakeConvolution


class SegmentationDecoder3d(nn.Module):
    """Scores per voxel.

    Parameters
    ----------
    widths, strides
        The encoder's.
    classes
        Background included.
    convolution
        Makes the convolutions of the blocks.
    stem
        The encoder's.
    """

    def __init__(
        self,
        widths: Sequence[int],
        strides: Sequence[Stride],
        classes: int,
        convolution: MakeConvolution,
        stem: Stride = (1, 1, 1),
    ) -> None:
        super().__init__()
        self.classes, self.stem = classes, stem
        self.enlarge = nn.ModuleList(
            nn.ConvTranspose3d(coarse, fine, stride, stride)
            for fine, coarse, stride in zip(widths[:-1], widths[1:], strides, strict=True)
        )
        self.refine = nn.ModuleList(ResidualBlock3d(2 * fine, fine, convolution) for fine in widths[:-1])
        self.classify = nn.Conv3d(widths[0], classes * math.prod(stem), 1)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Return (B, classes, Z, Y, X) scores from (B, C_i, Z_i, Y_i, X_i) levels, finest first."""
        features = levels[-1]
        for index in reversed(range(len(self.refine))):
            raised = self.enlarge[index](features)  # (B, C_i, Z_i, Y_i, X_i)
            features = self.refine[index](torch.cat([raised, levels[index]], dim=1))
        return self._to_voxels(self.classify(features))

    def _to_voxels(self, scores: Tensor) -> Tensor:
        """Lay the scores of each stem's voxels, which lie as channels, out in space."""
        batch, _, depth, height, width = scores.shape
        z, y, x = self.stem
        apart = scores.view(batch, self.classes, z, y, x, depth, height, width)
        woven = apart.permute(0, 1, 5, 2, 6, 3, 7, 4)  # (B, classes, Z_0, z, Y_0, y, X_0, x)
        return woven.reshape(batch, self.classes, depth * z, height * y, width * x)
