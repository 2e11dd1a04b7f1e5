"""Outcomes -> a JSON summary without voxels, for lists and tables; and back, for what is rendered anew from it."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import zip_longest
from typing import Any

import numpy as np

from inference.findings import (
    Algorithm,
    ClassProbability,
    Code,
    Finding,
    Findings,
    LabelSet,
    Measurement,
    NotEvaluable,
    Outcome,
    Segment,
)

_UNKNOWN_FAMILY = {"value": "123109", "scheme": "DCM", "meaning": "Artificial Intelligence"}
"""Of jobs whose row does not tell the family."""
_GREY = (50.0, 0.0, 0.0)


def describe_algorithm(algorithm: Algorithm) -> dict[str, Any]:
    """Return what names an algorithm for good: name, version, manufacturer, weights digest, family."""
    return {
        "name": algorithm.name,
        "version": algorithm.version,
        "manufacturer": algorithm.manufacturer,
        "weights_digest": algorithm.weights_digest,
        "family": _code(algorithm.family),
    }


def summarise(outcomes: Sequence[Outcome], given: Collection[tuple[int, str]] = ()) -> dict[str, Any]:
    """Return the summary of a job: a line for people, and every outcome.

    Parameters
    ----------
    outcomes
        What was found.
    given
        Ordinal and tracking identifier of answers that a person gave: the line tells them without a probability.

    Returns
    -------
    dict
        `text`, and `outcomes`, each with `evaluable` and, by it, `findings` and `segments` or `code` and `reason`.
    """
    return {
        "text": "; ".join(
            _line(outcome, {name for number, name in given if number == ordinal})
            for ordinal, outcome in enumerate(outcomes)
        ),
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


def read_algorithm(described: Mapping[str, Any]) -> Algorithm:
    """Return the algorithm that `describe_algorithm` described."""
    names = {name: str(described.get(name, "")) for name in ("name", "version", "manufacturer", "weights_digest")}
    return Algorithm(**names, family=Code(**described.get("family", _UNKNOWN_FAMILY)))


def read_outcomes(summary: Mapping[str, Any], algorithm: Algorithm) -> tuple[Outcome, ...]:
    """Return the outcomes that `summarise` summarised, as far as a summary tells them.

    Masks, colours, frames and heat maps are not in it: the masks are empty, and nothing that draws may use them.
    Of a class that a job of an earlier version wrote, level and kind are told by their order: the first is the normal
    one.
    """
    return tuple(
        _read_evaluated(each, algorithm)
        if each["evaluable"]
        else NotEvaluable(algorithm, each["code"], each["reason"], each["series_instance_uid"])
        for each in summary["outcomes"]
    )


def retold(outcomes: Sequence[Outcome], algorithm: Algorithm, summary: Mapping[str, Any]) -> tuple[Outcome, ...]:
    """Return outcomes that say what an algorithm's summary says, with the frames, masks and heat maps of these.

    For a second evaluation of what was told once: on another device its last digits may differ. Where the bundle was
    renewed meanwhile, or does not find the same segments, the outcome has no frames, and nothing is drawn: a picture
    must not show another mask than the segmentation that is out.
    """
    told = read_outcomes(summary, algorithm)
    if any(outcome.algorithm != algorithm for outcome in outcomes):
        return told
    if json.loads(json.dumps(summarise(outcomes))) == summary:
        return tuple(outcomes)
    return tuple(_redrawn(each, again) for each, again in zip_longest(told, outcomes[: len(told)]))


def _redrawn(told: Outcome, again: Outcome | None) -> Outcome:
    if not (isinstance(told, Findings) and isinstance(again, Findings)):
        return told
    drawn = {each.tracking_id: each for each in again.segments}
    if drawn.keys() != {each.tracking_id for each in told.segments}:
        return told
    segments = tuple(
        replace(each, mask=drawn[each.tracking_id].mask, color_lab=drawn[each.tracking_id].color_lab)
        for each in told.segments
    )
    return replace(told, frames=again.frames, segments=segments, heat_maps=again.heat_maps)


def _read_evaluated(content: Mapping[str, Any], algorithm: Algorithm) -> Findings:
    return Findings(
        algorithm,
        content["series_instance_uid"],
        (),
        tuple(_read_finding(each) for each in content["findings"]),
        tuple(_read_segment(each) for each in content["segments"]),
    )


def _read_finding(content: Mapping[str, Any]) -> Finding:
    classes = tuple(_read_class(each, position > 0) for position, each in enumerate(content["alternatives"]))
    return Finding(
        tracking_id=content["id"],
        level=content["level"],
        question=Code(**content["question"]),
        answer=next(each for each in classes if each.name == content["answer"]),
        alternatives=classes,
        site=Code(**content["site"]) if content["site"] else None,
        parent_id=content["parent_id"],
        label_set=_read_label_set(content.get("label_set")),
        epistemic=content.get("epistemic"),
    )


def _read_label_set(content: Mapping[str, Any] | None) -> LabelSet | None:
    return None if content is None else LabelSet(tuple(content["names"]), content["coverage"])


def _read_class(content: Mapping[str, Any], is_not_first: bool) -> ClassProbability:
    is_positive = content.get("is_positive")
    return ClassProbability(
        content["name"],
        Code(**content["code"]),
        content["probability"],
        content.get("parent"),
        is_not_first if is_positive is None else is_positive,
    )


def _read_segment(content: Mapping[str, Any]) -> Segment:
    kind = Code(**content["type"])
    return Segment(
        tracking_id=content["id"],
        number=content["number"],
        label=content["label"],
        category=Code(**content.get("category", content["type"])),
        type=kind,
        mask=np.zeros((0, 0, 0), dtype=np.bool_),
        color_lab=_GREY,
        laterality=Code(**content["laterality"]) if content["laterality"] else None,
        measurements=tuple(_read_measurement(each) for each in content["measurements"]),
    )


def _read_measurement(content: Mapping[str, Any]) -> Measurement:
    value = math.nan if content["value"] is None else float(content["value"])
    unit = Code(content["unit"], "UCUM", content.get("unit_meaning", content["unit"]))
    return Measurement(Code(**content["quantity"]), value, unit)


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
        "is_positive": finding.answer.is_positive,
        "alternatives": [_class(each) for each in finding.alternatives],
        "site": _code(finding.site) if finding.site else None,
        "label_set": asdict(finding.label_set) if finding.label_set else None,
        "epistemic": finding.epistemic,
    }


def _segment(segment: Segment) -> dict[str, Any]:
    return {
        "id": segment.tracking_id,
        "number": segment.number,
        "label": segment.label,
        "category": _code(segment.category),
        "type": _code(segment.type),
        "laterality": _code(segment.laterality) if segment.laterality else None,
        "measurements": [
            {
                "quantity": _code(each.quantity),
                # JSON has no NaN: what could not be measured is null.
                "value": each.value if math.isfinite(each.value) else None,
                "unit": each.unit.value,
                "unit_meaning": each.unit.meaning,
            }
            for each in segment.measurements
        ],
    }


def _class(probability: ClassProbability) -> dict[str, Any]:
    return {
        "name": probability.name,
        "code": _code(probability.code),
        "probability": probability.probability,
        "parent": probability.parent,
        "is_positive": probability.is_positive,
    }


def _code(code: Code) -> dict[str, str]:
    return {"value": code.value, "scheme": code.scheme, "meaning": code.meaning}


def _line(outcome: Outcome, given: Collection[str]) -> str:
    if isinstance(outcome, NotEvaluable):
        return f"not evaluable: {outcome.reason}"
    parts = [
        each.answer.name if each.tracking_id in given else f"{each.answer.name} {each.answer.probability:.2f}"
        for each in outcome.findings
    ]
    parts += [
        f"{segment.label} {measurement.value:.4g} {measurement.unit.value}"
        for segment in outcome.segments
        for measurement in segment.measurements[:1]
    ]
    return ", ".join(parts) or "no findings"
