"""Where the network looked for a class.

Grad-CAM (Selvaraju et al., ICCV 2017) on every pyramid level that the heads pool: a map's channels are weighed by the
mean gradient of the class's log-probability, summed, and cut at zero. The levels' maps, each scaled to its maximum,
are averaged.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from inference.networks.heads import hierarchical_log_probabilities
from inference.networks.hybridmednet import HybridMedNet


def grad_cam(
    network: HybridMedNet, levels: Sequence[Tensor], parents: Sequence[int], class_index: int, size: int
) -> Tensor:
    """Return (B, size, size) float32 maps in 0..1 for one coarse class.

    Parameters
    ----------
    levels
        Fused levels, as by `HybridMedNet.features`.
    parents
        Coarse class of each fine class.
    class_index
        Coarse class that is explained.
    size
        Side of the maps.
    """
    with torch.enable_grad():
        watched = [level.detach().clone().requires_grad_() for level in levels]
        answer = hierarchical_log_probabilities(network.classify(watched), parents)
        pooled = watched[network.classified_levels]
        gradients = torch.autograd.grad(answer.coarse[:, class_index].sum(), pooled)
    maps = []
    for level, gradient in zip(pooled, gradients, strict=True):
        weights = gradient.mean(dim=(2, 3), keepdim=True)  # (B, C, 1, 1)
        cam = (weights * level.detach()).sum(dim=1, keepdim=True).clamp(min=0)  # (B, 1, Y_i, X_i)
        cam = functional.interpolate(cam, size=(size, size), mode="bilinear", align_corners=False)
        maps.append(_to_maximum(cam))
    return _to_maximum(torch.stack(maps).mean(dim=0)).squeeze(1)  # (B, size, size)


def _to_maximum(cam: Tensor) -> Tensor:
    """Scale each (B, 1, Y, X) map to a maximum of 1; an empty map stays empty."""
    return cam / cam.amax(dim=(2, 3), keepdim=True).clamp(min=1e-12)
