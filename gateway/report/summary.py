"""Outcomes -> a JSON summary without voxels, for lists and tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from inference.findings import Algorithm, ClassProbability, Code, Finding, Findings, NotEvaluable, Outcome, Segment


def describe_algorithm(algorithm: Algorithm) -> dict[str, str]:
    """Return what names an algorithm for good: name, version, manufacturer, weights digest."""
    return {
        "name": algorithm.name,
        "version": algorithm.version,
        "manufacturer": algorithm.manufacturer,
        "weights_digest": algorithm.weights_digest,
    }


def summarise(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return the summary of a job: a line for people, and every outcome.

    Returns
    -------
    dict
        `text`, and `outcomes`, each with `evaluable` and, by it, `findings` and `segments` or `code` and `reason`.
    """
    return {
        "text": "; ".join(_line(outcome) for outcome in outcomes),
        "outcomes": [
            _not_evaluable(outcome) if isinstance(outcome, NotEvaluable) else _evaluated(outcome)
            for outcome in outcomes
        ],
    }


def not_evaluable_reason(outcomes: Sequence[Outcome]) -> str | None:
    """Return why nothing was evaluable; None where anything was."""
    withheld = [outcome for outcome in outcomes if isinstance(outcome, NotEvaluable)]
    if len(withheld) < len(outcomes):
        return None
    return "not evaluable: " + "; ".join(dict.fromkeys(outcome.reason for outcome in withheld))


def _not_evaluable(outcome: NotEvaluable) -> dict[str, Any]:
    return {
        "evaluable": False,
        "series_instance_uid": outcome.series_instance_uid,
        "code": outcome.code,
        "reason": outcome.reason,
    }


def _evaluated(outcome: Findings) -> dict[str, Any]:
    return {
        "evaluable": True,
        "series_instance_uid": outcome.series_instance_uid,
        "findings": [_finding(finding) for finding in outcome.findings],
        "segments": [_segment(segment) for segment in outcome.segments],
    }


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "id": finding.tracking_id,
        "parent_id": finding.parent_id,
        "level": finding.level,
        "question": _code(finding.question),
        "answer": finding.answer.name,
        "probability": finding.answer.probability,
        "alternatives": [_class(each) for each in finding.alternatives],
        "site": _code(finding.site) if finding.site else None,
    }


def _segment(segment: Segment) -> dict[str, Any]:
    return {
        "id": segment.tracking_id,
        "number": segment.number,
        "label": segment.label,
        "type": _code(segment.type),
        "laterality": _code(segment.laterality) if segment.laterality else None,
        "measurements": [
            {"quantity": _code(each.quantity), "value": each.value, "unit": each.unit.value}
            for each in segment.measurements
        ],
    }


def _class(probability: ClassProbability) -> dict[str, Any]:
    return {"name": probability.name, "code": _code(probability.code), "probability": probability.probability}


def _code(code: Code) -> dict[str, str]:
    return {"value": code.value, "scheme": code.scheme, "meaning": code.meaning}


def _line(outcome: Outcome) -> str:
    if isinstance(outcome, NotEvaluable):
        return f"not evaluable: {outcome.reason}"
    parts = [f"{each.answer.name} {each.answer.probability:.2f}" for each in outcome.findings]
    parts += [
        f"{segment.label} {measurement.value:.4g} {measurement.unit.value}"
        for segment in outcome.segments
        for measurement in segment.measurements[:1]
    ]
    return ", ".join(parts) or "no findings"
