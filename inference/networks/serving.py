"""A network as it serves: the same answers to rounding, with less to compute.

After training a batch norm is a factor and an offset for each channel: both go into the convolution before it (Jacob et
al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", CVPR 2018, section
3.2). Weights lie channels last, as the convolutions of CPUs and tensor cores want them.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models.resnet import BasicBlock, Bottleneck

from inference.networks.hybridmednet import HybridMedNet

_BLOCK = (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3"))


def as_served(network: HybridMedNet) -> HybridMedNet:
    """Fold the batch norms of a network in evaluation mode, and lay its weights channels last; it is changed itself."""
    for module in list(network.modules()):
        for convolution, norm in list(_pairs(module)):
            folded = fuse_conv_bn_eval(getattr(module, convolution), getattr(module, norm))
            setattr(module, convolution, folded.requires_grad_(False))
            setattr(module, norm, nn.Identity())
    return network.to(memory_format=torch.channels_last)


def _pairs(module: nn.Module) -> Iterator[tuple[str, str]]:
    """Yield the names of a module's convolutions that a batch norm follows, each with that norm's."""
    children = dict(module.named_children())
    if isinstance(module, BasicBlock | Bottleneck):
        names = [pair for pair in _BLOCK if pair[0] in children]
    elif isinstance(module, nn.Sequential):
        names = list(zip(children, list(children)[1:], strict=False))
    else:
        return
    for convolution, norm in names:
        if isinstance(children[convolution], nn.Conv2d) and isinstance(children[norm], nn.BatchNorm2d):
            yield convolution, norm
