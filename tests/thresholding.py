"""A model for the worker's tests: it answers with what it measures in the pixels, by a threshold."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pydicom

from inference.findings import (
    Algorithm,
    ClassProbability,
    Code,
    Finding,
    Findings,
    Measurement,
    Outcome,
    Segment,
    SourceFrame,
)

ALGORITHM = Algorithm(
    name="thresholding",
    version="1.0",
    manufacturer="HybridMed tests",
    family=Code("123109", "DCM", "Artificial Intelligence"),
    weights_digest="0" * 64,
)
_DARK = Code("dark", "99HYBRIDMED", "Mostly dark")
_BRIGHT = Code("bright", "99HYBRIDMED", "Mostly bright")
_TISSUE = Code("85756007", "SCT", "Tissue")
_QUESTION = Code("brightness", "99HYBRIDMED", "Brightness")
_FRACTION = Code("fraction-dark", "99HYBRIDMED", "Dark fraction")
_PERCENT = Code("%", "UCUM", "percent")


class Thresholding:
    """Marks the pixels darker than the mean of the image; evaluates X-rays.

    Parameters
    ----------
    during
        Called on the device thread before the pixels are looked at; a test stops or fails the work here.
    """

    algorithm = ALGORITHM

    def __init__(self, during: Callable[[], None] = lambda: None) -> None:
        self._during = during
        self.prepared = threading.Semaphore(0)
        """Released at each preparation."""

    def wants(self, modality: str, body_part: str, description: str, /) -> bool:
        """Take X-rays."""
        return modality in {"CR", "DX"}

    def prepare(self, series: Sequence[Sequence[Path]], /) -> Callable[[], Sequence[Outcome]]:
        """Read the first image of each series."""
        datasets = [pydicom.dcmread(files[0]) for files in series]
        pixels = [dataset.pixel_array.astype(np.float32) for dataset in datasets]  # each (Y, X)
        self.prepared.release()

        def infer() -> Sequence[Outcome]:
            self._during()
            return [_findings(dataset, image) for dataset, image in zip(datasets, pixels, strict=True)]

        return infer


def _findings(dataset: pydicom.Dataset, image: np.ndarray) -> Findings:
    mask = image < image.mean()
    dark = float(mask.mean())
    classes = (ClassProbability("dark", _DARK, dark), ClassProbability("bright", _BRIGHT, 1 - dark))
    answer = max(classes, key=lambda each: each.probability)
    segment = Segment(
        tracking_id="dark",
        number=1,
        label="dark",
        category=_TISSUE,
        type=_TISSUE,
        mask=mask[None],  # (1, Y, X)
        color_lab=(50.0, 20.0, 20.0),
        measurements=(Measurement(_FRACTION, 100 * dark, _PERCENT),),
    )
    return Findings(
        algorithm=ALGORITHM,
        series_instance_uid=str(dataset.SeriesInstanceUID),
        frames=(SourceFrame(str(dataset.SOPInstanceUID)),),
        findings=(Finding("brightness", "brightness", _QUESTION, answer, classes),),
        segments=(segment,),
    )
