"""One outcome -> all its DICOM objects."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gateway.report.assignment import Assignment
from gateway.report.heatmap import render_heat_maps
from gateway.report.identity import RenderedObject, Rendering, RenderOptions
from gateway.report.seg import render_segmentation
from gateway.report.source import read_source
from gateway.report.sr import render_findings_report, render_measurement_report, render_not_evaluable_report
from inference.findings import NotEvaluable, Outcome

_DEFAULT_OPTIONS = RenderOptions()


def render_outcome(
    outcome: Outcome,
    assignment: Assignment,
    sources: Sequence[Path],
    *,
    ordinal: int = 0,
    options: RenderOptions = _DEFAULT_OPTIONS,
) -> tuple[RenderedObject, ...]:
    """Return the DICOM objects of one outcome: SR of findings, SEG, SR of measurements, heat maps.

    The same arguments give the same bytes, except for changes of the libraries.

    Parameters
    ----------
    outcome
        What the model says, or why it says nothing.
    assignment
        The job and the revision; all UIDs follow from them.
    sources
        Part 10 files of the study, in any order; the evaluated series is picked from them.
    ordinal
        From 0; tells several outcomes of one job apart.
    options
        What a destination may want otherwise.

    Raises
    ------
    NotFoundError
        The evaluated series, or one of its frames, is not among `sources`.
    ValueError
        The outcome has segments on several planes without a position in the patient.
    """
    source = read_source(sources, outcome.series_instance_uid)
    rendering = Rendering(assignment, ordinal, outcome.algorithm, source, options)
    if isinstance(outcome, NotEvaluable):
        return (render_not_evaluable_report(rendering, outcome),)
    objects: list[RenderedObject] = []
    if outcome.findings:
        objects.append(render_findings_report(rendering, outcome))
    if outcome.segments:
        segmentation = render_segmentation(rendering, outcome)
        objects += [segmentation, render_measurement_report(rendering, outcome, segmentation)]
    return (*objects, *render_heat_maps(rendering, outcome))
