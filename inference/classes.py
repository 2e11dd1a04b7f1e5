"""Probabilities of a label hierarchy -> the findings that are reported."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from inference.bundle import Bundle
from inference.conformal import bounds_of, label_set
from inference.findings import ClassProbability, Finding, LabelSet
from inference.level import Level


def answer_levels(
    bundle: Bundle,
    probabilities: Sequence[NDArray[np.float64]],
    suffix: str = "",
    epistemic: Sequence[float | None] | None = None,
) -> tuple[Finding, ...]:
    """Answer each level below the answer above it, as long as more than one class is possible.

    Parameters
    ----------
    bundle
        Whose levels they are, outermost first.
    probabilities
        (classes,) of each level; below the first they are joint: P(coarse) * P(fine | coarse).
    suffix
        Ends every tracking identifier.
    epistemic
        Part of each level's uncertainty, as `Finding.epistemic`; None where it is not told.
    """
    findings: list[Finding] = []
    told = epistemic if epistemic is not None else [None] * len(bundle.levels)
    for level, values, part in zip(bundle.levels, probabilities, told, strict=True):
        above = findings[-1] if findings else None
        possible = [
            index for index, label in enumerate(level.classes) if above is None or label.parent == above.answer.name
        ]
        if len(possible) < 2:  # noqa: PLR2004 -- one class is no question
            break
        classes = tuple(
            ClassProbability(label.name, label.code, float(value), label.parent, _is_positive(level, index))
            for index, (label, value) in enumerate(zip(level.classes, values, strict=True))
        )
        findings.append(
            Finding(
                tracking_id=f"{level.name}{suffix}",
                level=level.name,
                question=level.question,
                answer=classes[_answer(level, values, possible)],
                alternatives=classes,
                site=level.site,
                parent_id=None if above is None else above.tracking_id,
                label_set=_label_set(bundle, level, values),
                epistemic=part,
            )
        )
    return tuple(findings)


def _is_positive(level: Level, index: int) -> bool:
    """Say whether a class is what its level looks for: the positive one, else any but the first."""
    return index > 0 if level.positive is None else level.classes[index].name == level.positive


def _answer(level: Level, values: NDArray[np.float64], possible: Sequence[int]) -> int:
    """Return the positive class from its threshold up, else the most probable of the others."""
    if level.positive is None:
        return max(possible, key=lambda index: values[index])
    positive = level.class_names.index(level.positive)
    if values[positive] >= level.threshold:
        return positive
    return max((index for index in possible if index != positive), key=lambda index: values[index])


def _label_set(bundle: Bundle, level: Level, values: NDArray[np.float64]) -> LabelSet | None:
    """Return the classes that may be the true one; None where the bundle states no coverage for the level."""
    bounds = bundle.bounds(level)
    if bundle.coverage is None or not bounds:
        return None
    (inside,) = label_set(values[None], bounds_of(bounds, level.class_names))
    names = tuple(level.class_names[index] for index in np.argsort(-values) if inside[index])
    return LabelSet(names, bundle.coverage)
