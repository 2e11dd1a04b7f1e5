"""What makes a probability trustworthy: sets with a stated coverage, and a guard against what was never seen."""

from pathlib import Path

import numpy as np
import pytest

from inference.conformal import bounds_of, fit_bounds, label_set
from inference.errors import BundleError, NotEvaluableError
from inference.novelty import KnownFeatures, check_known, fit_limit


def _cases(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw probabilities of a blunt classifier over three classes, one of them rare, and the truth."""
    generator = np.random.default_rng(seed)
    truth = generator.choice(3, size=count, p=[0.6, 0.3, 0.1])
    scores = generator.normal(0, 1, (count, 3)) + 1.5 * np.eye(3)[truth]
    return np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True), truth


@pytest.mark.parametrize("coverage", [0.8, 0.95])
def test_every_class_is_covered_as_stated(coverage: float) -> None:
    """On new cases the set holds the true class in at least the stated share, the rare class included."""
    bounds = fit_bounds(*_cases(4000, seed=1), coverage)
    probabilities, truth = _cases(20000, seed=2)

    held = label_set(probabilities, bounds)[np.arange(len(truth)), truth]

    for label in range(3):
        assert held[truth == label].mean() == pytest.approx(coverage, abs=0.03)


def test_too_few_cases_admit_the_class_always() -> None:
    """Five cases cannot tell where the lowest tenth begins."""
    bounds = fit_bounds(np.full((5, 2), 0.5), np.zeros(5, dtype=np.int64), 0.9)

    assert bounds.tolist() == [0, 0]


def test_the_most_probable_class_is_in_every_set() -> None:
    """Where no class reaches its bound, the answer itself remains."""
    inside = label_set(np.array([[0.3, 0.4, 0.3]]), np.array([0.9, 0.9, 0.9]))

    assert inside.tolist() == [[False, True, False]]


def test_bounds_are_read_by_name() -> None:
    """A class that the table does not tell is always admitted."""
    assert bounds_of({"b": 0.4}, ("a", "b")).tolist() == [0, 0.4]


def _clouds() -> tuple[np.ndarray, np.ndarray]:
    """Draw two classes far apart, each long along one axis and narrow along the others."""
    generator = np.random.default_rng(3)
    classes = np.repeat([0, 1], 400)
    spread = np.array([5.0, 1.0, 0.2, 1.0])
    return generator.normal(0, 1, (800, 4)) * spread + 30 * classes[:, None], classes


def test_distance_counts_in_the_spread_of_each_direction() -> None:
    """One step along the narrow axis is further than one along the long axis; both classes are near themselves."""
    features, classes = _clouds()
    known = KnownFeatures.learn(features, classes)
    centre = features[classes == 1].mean(axis=0)

    near, along, across = known.distances(centre + 4 * np.array([[0, 0, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0]]))

    assert near == pytest.approx(0, abs=1e-3)
    assert across > 3 * along
    assert np.sqrt((known.distances(features) ** 2).mean()) == pytest.approx(0.77, abs=0.02)  # 1, less what is shrunk


def test_what_lies_between_the_classes_is_refused_with_both_numbers() -> None:
    """The mean of all images is like none of them; the reason tells distance and limit."""
    features, classes = _clouds()
    known = KnownFeatures.learn(features, classes)
    limit = fit_limit(known.distances(features), 0.99)

    check_known(known, features[:1], limit=10)
    with pytest.raises(NotEvaluableError, match=rf"distance \d+\.\d\d, at most {limit:.2f}"):
        check_known(known, features.mean(axis=0)[None], limit)


def test_the_limit_lets_the_stated_share_pass() -> None:
    """99 of 100 pass."""
    assert (np.arange(1, 101) <= fit_limit(np.arange(1.0, 101.0), 0.99)).sum() >= 99


def test_known_features_of_another_network_are_refused(tmp_path: Path) -> None:
    """The file says for how many features it is; one that is none is named too."""
    file = tmp_path / "novelty.safetensors"
    KnownFeatures.learn(*_clouds()).save(file)

    assert KnownFeatures.load(file, 4).means.shape == (2, 4)
    with pytest.raises(BundleError, match="288 features"):
        KnownFeatures.load(file, 288)
    file.write_bytes(b"none")
    with pytest.raises(BundleError, match="cannot be read"):
        KnownFeatures.load(file, 4)
