"""Which pixels a class's probability comes from, by captum; beside Grad-CAM, which tells places of the feature maps.

Integrated gradients: Sundararajan, Taly and Yan, ICML 2017. Gradient SHAP: Lundberg and Lee, "A Unified Approach to
Interpreting Model Predictions", NeurIPS 2017, as expected gradients over blurred and blank baselines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from captum.attr import GradientShap, IntegratedGradients
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as vision

from inference.networks.heads import hierarchical_log_probabilities
from inference.networks.hybridmednet import HybridMedNet

METHODS = ("integrated-gradients", "gradient-shap")
_STEPS = 24
_SAMPLES = 16
_SEED = 20
_SMOOTHING_SHARE = 0.02
"""Standard deviation of the maps' low pass over their side: single pixels are no finding."""


def pixel_attributions(
    network: HybridMedNet, image: Tensor, parents: Sequence[int], class_index: int, method: str = METHODS[0]
) -> Tensor:
    """Return (B, 1, Y, X): what each pixel adds to the log-probability of a coarse class, against a blank image.

    Parameters
    ----------
    image
        (B, 1, Y, X), as the network is shown it.
    method
        One of `METHODS`.
    """
    explained = _CoarseClass(network, parents, class_index)
    baseline = image.mean(dim=(2, 3), keepdim=True).expand_as(image)
    with torch.enable_grad():
        shown = image.detach().clone().requires_grad_()
        found: Tensor = _METHODS[method](explained, shown, baseline)
    return found.detach()


def attribution_map(attributions: Tensor) -> Tensor:
    """Return (B, Y, X) maps in 0..1 of (B, 1, Y, X) attributions: what speaks for the class, low-passed."""
    sigma = max(_SMOOTHING_SHARE * attributions.shape[-1], 0.5)
    kernel = 2 * int(3 * sigma) + 1
    smooth = vision.gaussian_blur(attributions.clamp(min=0), kernel_size=[kernel, kernel], sigma=[sigma, sigma])
    scaled: Tensor = smooth / smooth.amax(dim=(2, 3), keepdim=True).clamp(min=1e-12)
    return scaled.squeeze(1)


class _CoarseClass(nn.Module):
    """The log-probability of one coarse class as a function of the image."""

    def __init__(self, network: HybridMedNet, parents: Sequence[int], class_index: int) -> None:
        super().__init__()
        self.network, self.parents, self.class_index = network, parents, class_index

    def forward(self, image: Tensor) -> Tensor:
        """Return (B,)."""
        answer = hierarchical_log_probabilities(self.network.classify(self.network.features(image)), self.parents)
        return answer.coarse[:, self.class_index]


def _integrated_gradients(explained: nn.Module, image: Tensor, baseline: Tensor) -> Tensor:
    found: Tensor = IntegratedGradients(explained).attribute(
        image, baselines=baseline, n_steps=_STEPS, internal_batch_size=_STEPS
    )
    return found


def _gradient_shap(explained: nn.Module, image: Tensor, baseline: Tensor) -> Tensor:
    side = image.shape[-1] // 4
    kernel = 2 * side + 1
    blurred = vision.gaussian_blur(image.detach(), kernel_size=[kernel, kernel], sigma=[side / 2, side / 2])
    with _seeded(image.device):
        found: Tensor = GradientShap(explained).attribute(
            image, baselines=torch.cat([baseline, blurred]), n_samples=_SAMPLES, stdevs=0.02
        )
    return found


@contextmanager
def _seeded(device: torch.device) -> Iterator[None]:
    """Have captum, which draws from numpy's and torch's global generators, draw the same each time; leave no trace."""
    before = np.random.get_state()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(_SEED)
        np.random.seed(_SEED)
        try:
            yield
        finally:
            np.random.set_state(before)


_METHODS: dict[str, Callable[[nn.Module, Tensor, Tensor], Tensor]] = {
    METHODS[0]: _integrated_gradients,
    METHODS[1]: _gradient_shap,
}
