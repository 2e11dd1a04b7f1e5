"""A bundle with a foreign network for projection images + series -> findings.

The network is shown the whole plane, letter-boxed; a second look, a guard for lungs and heat maps are our own
networks' alone. What outlines it gives are brought back to the source's pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from inference.bundle import Bundle
from inference.classes import answer_levels
from inference.device import using_device
from inference.findings import Findings, Outcome, Segment
from inference.foreign.load import load_foreign
from inference.foreign.spec import SEGMENTS, ForeignSpec
from inference.networks.heads import ClassLogits, hierarchical_log_probabilities
from inference.predict import ImagePredictor, PreparedImage, planar_segment
from inference.preread import Preread
from inference.series_predictor import Asked
from inference.transforms import Region, letter_box, sample
from inference.views import segmented


class ForeignPredictor(ImagePredictor):
    """A bundle's foreign model for projection images, loaded on a device.

    Parameters
    ----------
    bundle
        A bundle for projection images.
    spec
        Its `foreign`.
    device
        'auto', 'cpu' or 'cuda'.
    preread
        Instances that were read before their series was complete.

    Raises
    ------
    BundleError
        The network's file, its outputs or the self-test do not fit.
    DeviceError
        The device is not there or is full.
    """

    def __init__(self, bundle: Bundle, spec: ForeignSpec, device: str = "auto", preread: Preread | None = None) -> None:
        self.spec = bundle.projection
        super().__init__(bundle, device, (), preread)
        with using_device(self.device):
            self.network = load_foreign(bundle, spec, self.device)

    def _evaluate(self, asked: Sequence[Asked[PreparedImage]]) -> Sequence[Outcome]:
        return [self._outcome(one.item, partial(self._find, one.item, one.suffix)) for one in asked]

    def _find(self, item: PreparedImage, suffix: str) -> Findings:
        region = letter_box(item.aspect)
        planes = torch.from_numpy(item.grey)[None, None].to(self.device)  # (1, 1, detail, detail)
        thetas = torch.from_numpy(region.theta())[None].to(self.device)
        with torch.inference_mode():
            scores = self.network.scores(sample(planes, thetas, self.spec.size))
            probabilities = self._probabilities(scores)
            segments = self._segments(scores[SEGMENTS], region, item, suffix) if SEGMENTS in scores else ()
        return Findings(
            algorithm=self.bundle.algorithm,
            series_instance_uid=item.series_instance_uid,
            frames=(item.frame,),
            findings=answer_levels(self.bundle, probabilities, suffix),
            segments=segments,
        )

    def _probabilities(self, scores: Mapping[str, Tensor]) -> list[NDArray[np.float64]]:
        """Return the calibrated probabilities of each level; two levels are tied as our own networks' are."""
        bundle = self.bundle
        logits = [scores[level.name].cpu() for level in bundle.levels]  # each (1, classes)
        if len(logits) == 2:  # noqa: PLR2004 -- coarse and fine
            coarse, fine = bundle.temperatures
            tied = hierarchical_log_probabilities(ClassLogits(logits[0], logits[1]), bundle.parents, (coarse, fine))
            return [level[0].exp().double().numpy() for level in tied]
        pairs = zip(logits, bundle.temperatures, strict=True)
        return [torch.softmax(level[0].double() / temperature, dim=0).numpy() for level, temperature in pairs]

    def _segments(self, scores: Tensor, region: Region, item: PreparedImage, suffix: str) -> tuple[Segment, ...]:
        size = (self.spec.size, self.spec.size)
        on_region = functional.interpolate(torch.softmax(scores, dim=1), size=size, mode="bilinear")[0]  # (C, s, s)
        numbers = segmented(on_region, region, item.shape)  # (Y, X)
        return tuple(
            planar_segment(spec, number, numbers == number, item.spacing_mm, suffix)
            for number, spec in enumerate(self.bundle.segments, start=1)
            if (numbers == number).any()
        )
