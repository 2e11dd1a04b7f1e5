"""What a model says about one series: frozen values that know neither DICOM nor FHIR.

One meaning, many spellings: `gateway.report` writes these as SR, SEG and Secondary Capture, `fhir_facade` as FHIR.
Voxels are (Z, Y, X) on the grid of the source series; frame `k` of a mask lies on `Findings.frames[k]`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Code:
    """A coded concept (PS3.3 section 8): code value, coding scheme designator, code meaning."""

    value: str
    scheme: str
    """Coding scheme designator as in PS3.16 section 8: SCT, LN, DCM, RADLEX, UCUM, 99HYBRIDMED."""
    meaning: str


@dataclass(frozen=True, slots=True)
class Algorithm:
    """What made the findings (PS3.16 TID 4019)."""

    name: str
    version: str
    manufacturer: str
    family: Code
    """CID 7162 surface of algorithm families, for example (123109, DCM, 'Artificial Intelligence')."""
    weights_digest: str
    """SHA-256 of the weights file, 64 hexadecimal digits."""


@dataclass(frozen=True, slots=True)
class SourceFrame:
    """One image plane of the source series."""

    sop_instance_uid: str
    frame_number: int | None = None
    """From 1 in a multi-frame instance; None for a single-frame one."""


@dataclass(frozen=True, slots=True)
class ClassProbability:
    """One class of a level with its calibrated probability."""

    name: str
    code: Code
    probability: float
    parent: str | None = None
    """Class of the level above that it is a kind of; None at the outermost level."""
    is_positive: bool | None = None
    """Whether it is what the level looks for, as 'pneumonia' and not 'normal'; None: not told."""


@dataclass(frozen=True, slots=True)
class LabelSet:
    """Classes of a level that hold the true one with a stated probability (`inference.conformal`)."""

    names: tuple[str, ...]
    """Most probable first."""
    coverage: float
    """0..1, over cases like those of the calibration."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One answer of the label hierarchy: the most probable class of one level."""

    tracking_id: str
    """Unique among the findings of a job, for example 'coarse'. The tracking UID is derived from job and this."""
    level: str
    """Level of the hierarchy, outermost first: 'coarse', 'fine'."""
    question: Code
    """What the level asks, for example (RID5350, RADLEX, 'pneumonia') or a 99HYBRIDMED code."""
    answer: ClassProbability
    alternatives: tuple[ClassProbability, ...]
    """All classes of the level, the answer among them; probabilities sum to 1 over the level."""
    site: Code | None = None
    parent_id: str | None = None
    """`tracking_id` of the finding one level up."""
    label_set: LabelSet | None = None
    """None where the model's calibration tells none."""
    epistemic: float | None = None
    """Part of `uncertainty` that more training images could remove: what the model's weights leave open. The rest is
    what the image itself leaves open (aleatoric). None where the model does not tell them apart."""

    @property
    def uncertainty(self) -> float:
        """Entropy of the level's probabilities over its maximum (Shannon 1948): 0 certain, 1 all classes alike."""
        probabilities = [each.probability for each in self.alternatives if each.probability > 0]
        if len(self.alternatives) == 1:
            return 0.0
        return max(0.0, -sum(p * math.log(p) for p in probabilities) / math.log(len(self.alternatives)))


@dataclass(frozen=True, slots=True)
class Measurement:
    """A number about a segment, with its UCUM unit."""

    quantity: Code
    value: float
    unit: Code
    """UCUM: value is the UCUM expression, scheme 'UCUM', for example ('mL', 'UCUM', 'milliliter')."""


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """One segmented structure on the source grid."""

    tracking_id: str
    number: int
    """From 1 (PS3.3 C.8.20.2, Segment Number)."""
    label: str
    category: Code
    type: Code
    mask: NDArray[np.bool_]
    """(Z, Y, X) bool, on the grid of `Findings.frames`."""
    color_lab: tuple[float, float, float]
    """Recommended display colour as CIELab (L 0..100, a and b -128..127), D50 white point."""
    laterality: Code | None = None
    measurements: tuple[Measurement, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class HeatMap:
    """Where the network looked for one class (Grad-CAM, Selvaraju et al. 2017)."""

    class_name: str
    level: str
    frame: SourceFrame
    weight: NDArray[np.float32]
    """(Y, X) float32, 0..1, on the grid of the source frame."""


@dataclass(frozen=True, slots=True, eq=False)
class Findings:
    """All that one model says about one series."""

    algorithm: Algorithm
    series_instance_uid: str
    frames: tuple[SourceFrame, ...]
    """Source frame of each plane k of the masks."""
    findings: tuple[Finding, ...] = ()
    segments: tuple[Segment, ...] = ()
    heat_maps: tuple[HeatMap, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class NotEvaluable:
    """The model was not run, or its answer is withheld, because the study lies outside its declared input."""

    algorithm: Algorithm
    code: str
    """A stable short name, for example 'modality', 'projection', 'geometry.uneven', 'pixels.undecodable'."""
    reason: str
    """A sentence for a radiologist, without patient data: which value, what was expected."""
    series_instance_uid: str | None = None


Outcome: TypeAlias = Findings | NotEvaluable
