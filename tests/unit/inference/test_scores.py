"""Figures of merit against values worked out by hand."""

import numpy as np
import pytest

from inference.training.scores import (
    auc,
    auc_within,
    balanced_accuracy,
    brier_score,
    calibration_error,
    cross_entropy,
    dice,
    logistic_scores,
    reliability,
    roc,
    sensitivity,
    specificity,
)


def test_auc_counts_pairs_and_halves_ties() -> None:
    """Three pairs of four in order and one tied are 3.5; one in order and one tied are 1.5."""
    truth = np.array([False, False, True, True])

    assert auc(truth, np.array([0.2, 0.5, 0.5, 0.9])) == pytest.approx(3.5 / 4)
    assert auc(truth, np.array([0.2, 0.6, 0.6, 0.1])) == pytest.approx(1.5 / 4)
    assert np.isnan(auc(np.array([True, True]), np.array([0.1, 0.2])))


def test_a_repeated_confounder_is_worth_little_within_its_strata() -> None:
    """A score that is the confounder separates well overall and badly among images alike."""
    generator = np.random.default_rng(0)
    truth = generator.random(4000) < 0.5
    confounder = generator.normal(truth * 2.0, 1.0)
    telling = generator.normal(truth * 2.0, 1.0)

    assert auc(truth, confounder) > 0.9
    assert auc_within(truth, confounder, confounder, strata=20) < 0.65
    assert auc_within(truth, telling, confounder, strata=20) > 0.88


def test_sensitivity_specificity_and_balance() -> None:
    """Three of four positives and one of two negatives are right."""
    truth = np.array([1, 1, 1, 1, 0, 0])
    answer = np.array([1, 1, 1, 0, 0, 1])

    assert sensitivity(truth == 1, answer == 1) == 0.75
    assert specificity(truth == 1, answer == 1) == 0.5
    assert balanced_accuracy(truth, answer) == 0.625


def test_honest_probabilities_have_no_calibration_error() -> None:
    """Nine right answers of ten at 0.9 are honest; at certainty the gap is 0.1."""
    truth = np.array([0] * 9 + [1])

    assert calibration_error(np.tile([0.9, 0.1], (10, 1)), truth) == pytest.approx(0.0)
    assert calibration_error(np.tile([1.0, 0.0], (10, 1)), truth) == pytest.approx(0.1)


def test_bins_hold_every_image_once() -> None:
    """Each tells its images, their mean confidence and the share of right answers; certainty is in the last bin."""
    probabilities = np.array([[1.0, 0.0], [0.98, 0.02], [0.55, 0.45], [0.4, 0.6]])

    (all_of_them,) = reliability(probabilities, np.array([0, 1, 0, 0]), bins=2)
    high = reliability(probabilities, np.array([0, 1, 0, 0]), bins=10)[-1]

    assert (all_of_them.count, all_of_them.accuracy) == (4, 0.5)
    assert (high.count, high.confidence, high.accuracy) == (2, pytest.approx(0.99), 0.5)


def test_a_bin_on_its_lower_edge_is_told_as_the_one_it_is() -> None:
    """Where all of them have a probability of 3/5, that is the fourth of five bins; so the picture puts it there."""
    for edge in (0.6, 0.8):
        (told,) = reliability(np.array([[edge, 1 - edge]] * 3), np.array([0, 0, 1]), bins=5)

        assert told.index == round(edge * 5)


def test_cross_entropy_and_brier_score_by_hand() -> None:
    """One right answer at 0.8, one wrong at 0.4; a probability of nothing is no infinite loss."""
    probabilities, truth = np.array([[0.8, 0.2], [0.6, 0.4]]), np.array([0, 1])

    assert cross_entropy(probabilities, truth) == pytest.approx(-(np.log(0.8) + np.log(0.4)) / 2)
    assert brier_score(probabilities, truth) == pytest.approx((2 * 0.2**2 + 2 * 0.6**2) / 2)
    assert np.isfinite(cross_entropy(np.array([[1.0, 0.0]]), np.array([1])))


def test_the_area_under_the_curve_is_the_auc() -> None:
    """The curve goes from none to all, ties in one step; its area counts pairs as `auc` does."""
    generator = np.random.default_rng(0)
    truth = generator.random(500) < 0.4
    score = np.round(truth + generator.normal(0, 1, 500), 1)

    false, true = roc(truth, score)

    assert (false[0], true[0], false[-1], true[-1]) == (0, 0, 1, 1)
    assert float(np.trapezoid(true, false)) == pytest.approx(auc(truth, score))


def test_dice_of_half_an_overlap() -> None:
    """Two masks of two pixels that share one overlap by a half; two empty ones agree."""
    first, second = np.array([1, 1, 0], dtype=np.bool_), np.array([0, 1, 1], dtype=np.bool_)

    assert dice(first, second) == 0.5
    assert dice(first & False, second & False) == 1.0


def test_logistic_regression_learns_the_direction_and_the_share() -> None:
    """A larger number that means 'no' gets a lower score, and the mean score is the share of positives."""
    generator = np.random.default_rng(0)
    truth = generator.random(2000) < 0.7
    known = generator.normal(np.where(truth, -1.0, 1.0), 1.0)

    scores = logistic_scores(known, truth, known)

    assert auc(truth, scores) > 0.9
    assert scores.mean() == pytest.approx(truth.mean(), abs=0.01)
