"""A bundle on its validation groups, beside what the aspect ratio alone would say."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from inference.bundle import Bundle
from inference.conformal import bounds_of, label_set
from inference.laplace import LastLayer, Predictive, predict
from inference.training.answers import Answers, Scores
from inference.training.data import Images
from inference.training.resolution import kept_at_resolution
from inference.training.scores import (
    accuracy,
    auc,
    auc_within,
    balanced_accuracy,
    brier_score,
    calibration_error,
    cross_entropy,
    logistic_scores,
    sensitivity,
    specificity,
)


@dataclass(frozen=True, slots=True)
class CoarseFigures:
    """The positive class against the rest, at the bundle's threshold."""

    accuracy: float
    balanced_accuracy: float
    auc: float
    auc_within_aspect: float
    """Among images of like aspect ratio (five strata)."""
    sensitivity: float
    specificity: float
    calibration_error: float
    calibration_error_uncalibrated: float


@dataclass(frozen=True, slots=True)
class FineFigures:
    """The classes below the positive one, on the images that truly are positive; then all classes on all images."""

    accuracy: float
    balanced_accuracy: float
    auc: float
    """One class against the rest, mean over the classes."""
    accuracy_all_classes: float
    balanced_accuracy_all_classes: float
    calibration_error: float
    calibration_error_uncalibrated: float


@dataclass(frozen=True, slots=True)
class AspectFigures:
    """A logistic regression on the aspect ratio alone, fitted on the training groups."""

    auc_coarse: float
    auc_fine: float


@dataclass(frozen=True, slots=True)
class AspectHiddenFigures:
    """The positive class against the rest where every image is the box around its lungs, stretched to one square."""

    accuracy: float
    balanced_accuracy: float
    auc: float


@dataclass(frozen=True, slots=True)
class CalibrationFigures:
    """How honest probabilities are; less is better of each."""

    calibration_error: float
    cross_entropy: float
    brier: float


@dataclass(frozen=True, slots=True)
class LabelSetFigures:
    """How far the label sets of one level keep their promise."""

    stated_coverage: float
    coverage: float
    """Share of the images whose set holds the true class."""
    least_class_coverage: float
    """Of the class that is covered worst."""
    mean_size: float
    """Classes in a set."""


@dataclass(frozen=True, slots=True)
class EvaluationReport:
    """All figures of one evaluation; every image counts, also those whose answer the guard would withhold."""

    weights_sha256: str
    images: int
    groups: int
    not_evaluable: int
    coarse: CoarseFigures
    fine: FineFigures
    dice: Mapping[str, float]
    """Mean over the images with a trusted mask, by segment name."""
    dice_by_class: Mapping[str, Mapping[str, float]]
    """The same over the images of each coarse class."""
    dice_at_resolution: Mapping[str, float]
    """Of the masks themselves, brought to the network's grid and back: more is not to be had on it."""
    label_sets: Mapping[str, LabelSetFigures]
    """By level; empty where the bundle states no coverage."""
    calibration: Mapping[str, Mapping[str, CalibrationFigures]]
    """By level, then by what was done to the scores: the keys of `Said`."""
    aspect_only: AspectFigures
    aspect_hidden: AspectHiddenFigures | None
    """None where the lungs were not asked stretched."""

    def to_dict(self) -> dict[str, object]:
        """Return the figures as plain values, rounded to what their number of images supports."""
        rounded = _rounded(asdict(self))
        assert isinstance(rounded, dict)  # noqa: S101 -- what went in is a dict
        return rounded

    def to_json(self) -> str:
        """Return the figures as JSON."""
        return json.dumps(self.to_dict(), indent=2)


def _rounded(value: object) -> object:
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {key: _rounded(entry) for key, entry in value.items() if entry is not None}
    return value


@dataclass(frozen=True, slots=True, eq=False)
class AspectTable:
    """Known aspect ratios with their classes."""

    aspects: NDArray[np.float64]
    coarse: NDArray[np.int64]
    fine: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Said:
    """What both levels say at each step of the calibration."""

    steps: Mapping[str, tuple[Predictive, Predictive]]
    """`uncalibrated`; `temperature`; and, where the last layer's weights are not taken for certain, `laplace`."""

    @classmethod
    def of(cls, bundle: Bundle, scores: Scores, posterior: LastLayer | None) -> Said:
        """Return it for a bundle with this posterior of its last layer."""
        parents, alone = bundle.parents, scores.draw(bundle.parents, None)
        steps = {
            "uncalibrated": predict(alone, parents, (1.0, 1.0)),
            "temperature": predict(alone, parents, bundle.temperatures_alone),
        }
        if posterior is not None:
            steps["laplace"] = predict(scores.draw(parents, posterior), parents, bundle.temperatures)
        return cls(steps)

    @property
    def served(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(N, coarse) and joint (N, fine) probabilities after the last step: those that reports give."""
        coarse, fine = list(self.steps.values())[-1]
        return coarse.probabilities, fine.probabilities

    @property
    def plain(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Those of the scores as they are."""
        coarse, fine = self.steps["uncalibrated"]
        return coarse.probabilities, fine.probabilities


def judge(
    bundle: Bundle, images: Images, answers: Answers, training: AspectTable, posterior: LastLayer | None
) -> EvaluationReport:
    """Compare answers with the truth.

    Parameters
    ----------
    images, answers
        The validation part.
    training
        Aspect ratios of the training part, for the aspect-only baseline.
    posterior
        Of the bundle's last layer.
    """
    said, truths = Said.of(bundle, answers.scores, posterior), (images.coarse, images.fine)
    calibrated, plain = said.served, said.plain
    hidden = None if answers.aspect_hidden is None else Said.of(bundle, answers.aspect_hidden, posterior).served[0]
    positive = positive_class(bundle)
    children = [child for child, parent in enumerate(bundle.parents) if parent == positive]
    return EvaluationReport(
        weights_sha256=bundle.algorithm.weights_digest,
        images=len(images),
        groups=len(set(images.groups)),
        not_evaluable=int((~answers.is_evaluable).sum()),
        coarse=_coarse_figures(bundle, images, calibrated[0], plain[0]),
        fine=_fine_figures(images, calibrated[1], plain[1], children),
        dice=_by_segment(bundle, answers.dice),
        dice_by_class={
            name: _by_segment(bundle, answers.dice[images.coarse == index])
            for index, name in enumerate(bundle.levels[0].class_names)
        },
        dice_at_resolution=_by_segment(bundle, kept_at_resolution(bundle, images)),
        label_sets=dict(_label_set_figures(bundle, calibrated, truths)),
        calibration=_calibration_figures(bundle, said, truths),
        aspect_only=_aspect_figures(images, training, positive, children),
        aspect_hidden=None if hidden is None else _hidden_figures(bundle, images, hidden),
    )


def positive_class(bundle: Bundle) -> int:
    """Return the index of the coarse class that counts as positive, the last one where the bundle names none."""
    level = bundle.levels[0]
    return level.class_names.index(level.positive or level.class_names[-1])


def _coarse_figures(
    bundle: Bundle, images: Images, calibrated: NDArray[np.float64], plain: NDArray[np.float64]
) -> CoarseFigures:
    positive = positive_class(bundle)
    truth, score = images.coarse == positive, calibrated[:, positive]
    answer = score >= bundle.levels[0].threshold
    known = images.has_aspect
    return CoarseFigures(
        accuracy=accuracy(truth.astype(np.int64), answer.astype(np.int64)),
        balanced_accuracy=balanced_accuracy(truth.astype(np.int64), answer.astype(np.int64)),
        auc=auc(truth, score),
        auc_within_aspect=auc_within(truth[known], score[known], images.aspects[known]),
        sensitivity=sensitivity(truth, answer),
        specificity=specificity(truth, answer),
        calibration_error=calibration_error(calibrated, images.coarse),
        calibration_error_uncalibrated=calibration_error(plain, images.coarse),
    )


def _hidden_figures(bundle: Bundle, images: Images, calibrated: NDArray[np.float64]) -> AspectHiddenFigures:
    positive = positive_class(bundle)
    truth, score = images.coarse == positive, calibrated[:, positive]
    answer = (score >= bundle.levels[0].threshold).astype(np.int64)
    right = truth.astype(np.int64)
    return AspectHiddenFigures(accuracy(right, answer), balanced_accuracy(right, answer), auc(truth, score))


def _calibration_figures(
    bundle: Bundle, said: Said, truths: Sequence[NDArray[np.int64]]
) -> dict[str, dict[str, CalibrationFigures]]:
    def judged(values: NDArray[np.float64], truth: NDArray[np.int64]) -> CalibrationFigures:
        figures = (each(values, truth) for each in (calibration_error, cross_entropy, brier_score))
        return CalibrationFigures(*figures)

    return {
        level.name: {name: judged(levels[index].probabilities, truths[index]) for name, levels in said.steps.items()}
        for index, level in enumerate(bundle.levels)
    }


def _fine_figures(
    images: Images, calibrated: NDArray[np.float64], plain: NDArray[np.float64], children: Sequence[int]
) -> FineFigures:
    inside = np.isin(images.fine, children)
    truth = images.fine[inside]
    joint = calibrated[inside][:, children]
    conditional = joint / joint.sum(axis=1, keepdims=True)  # (n, children)
    answer = np.array(children, dtype=np.int64)[conditional.argmax(axis=1)]
    areas = [auc(truth == child, conditional[:, index]) for index, child in enumerate(children)]
    everywhere = calibrated.argmax(axis=1)
    return FineFigures(
        accuracy=accuracy(truth, answer),
        balanced_accuracy=balanced_accuracy(truth, answer),
        auc=known_mean(np.array(areas)),
        accuracy_all_classes=accuracy(images.fine, everywhere),
        balanced_accuracy_all_classes=balanced_accuracy(images.fine, everywhere),
        calibration_error=calibration_error(calibrated, images.fine),
        calibration_error_uncalibrated=calibration_error(plain, images.fine),
    )


def _label_set_figures(
    bundle: Bundle, calibrated: Sequence[NDArray[np.float64]], truths: Sequence[NDArray[np.int64]]
) -> Iterator[tuple[str, LabelSetFigures]]:
    for level, values, truth in zip(bundle.levels, calibrated, truths, strict=True):
        bounds = bundle.bounds(level)
        if bundle.coverage is None or not bounds:
            continue
        inside = label_set(values, bounds_of(bounds, level.class_names))  # (N, K)
        held = inside[np.arange(len(truth)), truth]
        yield (
            level.name,
            LabelSetFigures(
                stated_coverage=bundle.coverage,
                coverage=float(held.mean()),
                least_class_coverage=min(float(held[truth == label].mean()) for label in np.unique(truth)),
                mean_size=float(inside.sum(axis=1).mean()),
            ),
        )


def _aspect_figures(images: Images, training: AspectTable, positive: int, children: Sequence[int]) -> AspectFigures:
    known = images.has_aspect
    coarse = logistic_scores(training.aspects, training.coarse == positive, images.aspects[known])
    below = np.isin(training.fine, children)
    asked = known & np.isin(images.fine, children)
    fine = logistic_scores(training.aspects[below], training.fine[below] == children[-1], images.aspects[asked])
    return AspectFigures(
        auc_coarse=auc(images.coarse[known] == positive, coarse),
        auc_fine=auc(images.fine[asked] == children[-1], fine),
    )


def _by_segment(bundle: Bundle, overlaps: NDArray[np.float64]) -> dict[str, float]:
    """Return the mean of (N, segments) Dice by segment name."""
    return {segment.name: known_mean(overlaps[:, index]) for index, segment in enumerate(bundle.segments)}


def known_mean(values: NDArray[np.float64]) -> float:
    """Return the mean of the values that are known, NaN without any."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
