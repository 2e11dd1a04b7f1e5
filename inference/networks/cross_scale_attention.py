"""What a second, registered input shows at the places that the first asks about: CT and MR, CT and PET.

Vaswani et al., "Attention Is All You Need", NIPS 2017: the first input asks, the second answers. A mask leaves out
places that the second input does not cover. Both together go through a grouped convolution (Xie et al., "Aggregated
Residual Transformations for Deep Neural Networks", CVPR 2017) that sees a share of both in each group.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class CrossScaleAttention(nn.Module):
    """Add to the first input's features what the second's say.

    Parameters
    ----------
    channels
        Width of both.
    heads
        Attention heads; divides `channels`.
    groups
        Groups of the fusing convolution; divides `channels`.
    grid
        (y, x) of the learned positional encoding, which is resampled onto other grids.
    """

    def __init__(self, channels: int, heads: int = 4, groups: int = 4, grid: tuple[int, int] = (7, 7)) -> None:
        super().__init__()
        self.groups = groups
        self.position = nn.Parameter(torch.zeros(1, channels, *grid))
        nn.init.trunc_normal_(self.position, std=0.02)
        self.ask_norm, self.answer_norm = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.attend = nn.MultiheadAttention(channels, heads, batch_first=True)
        self.fuse = nn.Conv2d(2 * channels, channels, 3, padding=1, groups=groups)

    def _tokens(self, features: Tensor, norm: nn.LayerNorm) -> Tensor:
        position = functional.interpolate(self.position, size=features.shape[-2:], mode="bilinear")
        tokens: Tensor = norm((features + position).flatten(2).transpose(1, 2))  # (B, Y * X, C)
        return tokens

    def answers(self, first: Tensor, second: Tensor, covered: Tensor | None = None) -> Tensor:
        """Return what the second input says at each place of the first, (B, C, Y, X).

        Parameters
        ----------
        first
            (B, C, Y, X).
        second
            (B, C, V, U): the grids may differ.
        covered
            (B, V, U) bool: places of the second input that count; None: all. An image without any gets zeros.
        """
        keys = self._tokens(second, self.answer_norm)  # (B, V * U, C)
        left_out = None if covered is None else ~covered.flatten(1)  # (B, V * U)
        is_silent = torch.zeros(first.shape[0], dtype=torch.bool, device=first.device)
        if left_out is not None:
            is_silent = left_out.all(dim=1)
            left_out = left_out & ~is_silent[:, None]  # a softmax over nothing is not a number
        asked = self._tokens(first, self.ask_norm)
        heard, _ = self.attend(asked, keys, keys, key_padding_mask=left_out, need_weights=False)
        spoken: Tensor = heard.masked_fill(is_silent[:, None, None], 0.0)
        return spoken.transpose(1, 2).reshape(first.shape)

    def forward(self, first: Tensor, second: Tensor, covered: Tensor | None = None) -> Tensor:
        """Return the first input's features (B, C, Y, X) with what the second adds."""
        answers = self.answers(first, second, covered)
        batch, channels, height, width = first.shape
        share = channels // self.groups
        paired = torch.stack(
            [
                first.view(batch, self.groups, share, height, width),
                answers.view(batch, self.groups, share, height, width),
            ],
            dim=2,
        )  # (B, groups, 2, share, Y, X): each group of the convolution sees both
        added: Tensor = self.fuse(paired.reshape(batch, 2 * channels, height, width))
        return first + added
