"""What the worker is given: models, and renderers of what they say."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Protocol, TypeAlias, runtime_checkable

from gateway.report import RenderedObject, RenderOptions
from gateway.report.assignment import Assignment
from gateway.report.document import RenderDocuments
from gateway.report.fhir_input import RenderFhir
from inference.findings import Algorithm, Findings, Outcome

Inference: TypeAlias = Callable[[], Sequence[Outcome]]
"""A study in memory, ready for the device; the call returns an outcome for each series, or one for all."""


class Model(Protocol):
    """A bundle, loaded."""

    @property
    def algorithm(self) -> Algorithm:
        """What it calls itself."""

    def wants(self, modality: str, body_part: str, description: str, /) -> bool:
        """Say whether the bundle is meant for such a series."""

    def prepare(self, series: Sequence[Sequence[Path]], /) -> Inference:
        """Read the files of each series and do what needs no device; NotEvaluableError where nothing can be used."""


@runtime_checkable
class Together(Protocol):
    """A model that evaluates several studies in one call."""

    def infer_many(self, inferences: Sequence[Inference], /) -> Sequence[Sequence[Outcome]]:
        """Return what each inference, all prepared by this model, gives when called by itself."""


FindModel: TypeAlias = Callable[[str], Model | None]
"""Bundle name -> the model, loaded at the first call; None where it is not installed, BundleError where it is bad."""


class RenderDicom(Protocol):
    """`gateway.report.render_outcome`."""

    def __call__(
        self,
        outcome: Outcome,
        assignment: Assignment,
        sources: Sequence[Path],
        *,
        ordinal: int,
        options: RenderOptions,
    ) -> Sequence[RenderedObject]:
        """Return the DICOM objects of one outcome."""


RenderPictures: TypeAlias = Callable[[Findings, Sequence[Path]], Mapping[str, bytes]]
"""`gateway.report.render_pictures`: PNG pictures by name."""


@dataclass(frozen=True, slots=True)
class Renderers:
    """Outcomes -> what is stored of them."""

    dicom: RenderDicom
    pictures: RenderPictures
    fhir: RenderFhir
    documents: RenderDocuments | None = None
    """HTML and PDF for people; None: none are written."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a job is held, and how often it is tried."""

    lease_s: float
    """Renewed at a third of it."""
    max_attempts: int
    retry_first: timedelta
    retry_limit: timedelta
    job_limit_s: float = 3600.0
    """After which a job counts as hanging: the worker's process ends, and the job is tried again."""
    max_device_losses: int = 3
    """Workers that may lose their device on one job, after which it is given up."""
    together: int = 1
    """Jobs of one bundle that are evaluated in one call, where so many wait; 1: each by itself."""
