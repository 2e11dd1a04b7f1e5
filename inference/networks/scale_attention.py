"""Attention over all pyramid levels of one scale, as a residual: what is unimportant fades, nothing is lost.

`ATTENTIONS` holds the kinds that `[network] attention` names. All but 'none' and 'mixed' treat the levels alike and
share their weights over them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from inference.networks.attention import ChannelAttention, SpatialAttention, SqueezeExcitation


class NoAttention(nn.Module):
    """The levels as they are."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Return the (B, C, Y_i, X_i) levels."""
        return list(levels)


class ScaleAttention(nn.Module):
    """First the channels, then the places (Woo et al., "CBAM", ECCV 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channel = ChannelAttention(channels)
        self.spatial = SpatialAttention()

    def forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Return every (B, C, Y_i, X_i) level with its attended part added."""
        return [level + self.spatial(self.channel(level)) for level in levels]


class SqueezedAttention(nn.Module):
    """The channels alone (Hu et al., "Squeeze-and-Excitation Networks", CVPR 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = SqueezeExcitation(channels)

    def forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Return every (B, C, Y_i, X_i) level with its attended part added."""
        return [level + self.squeeze(level) for level in levels]


class JointAttention(nn.Module):
    """Channels and places at once, one weight for each pair (Park et al., "BAM", BMVC 2018, equation 2).

    The scores of both are added before the sigmoid, so that neither has the last word.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channel = ChannelAttention(channels)
        self.spatial = SpatialAttention()

    def weights(self, features: Tensor) -> Tensor:
        """Return (B, C, Y, X) weights in 0..1."""
        channel = torch.logit(self.channel.weights(features), eps=1e-6)[:, :, None, None]  # (B, C, 1, 1)
        place = torch.logit(self.spatial.weights(features), eps=1e-6)  # (B, 1, Y, X)
        return torch.sigmoid(channel + place)

    def forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Return every (B, C, Y_i, X_i) level with its attended part added."""
        return [level + level * self.weights(level) for level in levels]


class SummedAttention(nn.Module):
    """Squeeze-and-excitation and CBAM side by side: x * (se + cbam)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = SqueezeExcitation(channels)
        self.channel = ChannelAttention(channels)
        self.spatial = SpatialAttention()

    def weights(self, features: Tensor) -> Tensor:
        """Return the sum of both (B, C, Y, X) weights, in 0..2."""
        channel = self.channel.weights(features)[:, :, None, None]  # (B, C, 1, 1)
        place = self.spatial.weights(features * channel)  # (B, 1, Y, X)
        return self.squeeze.weights(features) + channel * place

    def forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Return every (B, C, Y_i, X_i) level with its attended part added."""
        return [level + level * self.weights(level) for level in levels]


class MixedAttention(nn.Module):
    """Where on the finer half of the levels, what on the coarser: a fine map knows places, a coarse one meanings."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.spatial = SpatialAttention()
        self.squeeze = SqueezeExcitation(channels)

    def forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Return every (B, C, Y_i, X_i) level with its attended part added."""
        fine = len(levels) // 2
        return [
            level + (self.spatial(level) if index < fine else self.squeeze(level)) for index, level in enumerate(levels)
        ]


ATTENTIONS: dict[str, Callable[[int], nn.Module]] = {
    "none": NoAttention,
    "se": SqueezedAttention,
    "cbam": ScaleAttention,
    "sca": JointAttention,
    "se+cbam": SummedAttention,
    "mixed": MixedAttention,
}
