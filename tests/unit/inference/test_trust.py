"""What makes a probability trustworthy: sets with a stated coverage, and a guard against what was never seen."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from inference.conformal import bounds_of, fit_bounds, label_set, rounded_down
from inference.errors import BundleError, NotEvaluableError
from inference.novelty import KnownFeatures, check_known, fit_limit
from inference.pinned import Pinned


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


def test_what_is_written_down_covers_no_less() -> None:
    """A bound of many digits still admits the case that it was found at."""
    bounds = np.array([0.123459, 0.3, 0.0, 0.999999])

    written = np.array(rounded_down(bounds, 5))

    assert written.tolist() == [0.12345, 0.3, 0.0, 0.99999]
    assert label_set(bounds[None], written).all()


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


def test_what_is_nearer_to_images_turned_over_is_refused() -> None:
    """Within the limit it is called upside down; beyond it, unlike all; without turned images only the limit counts."""
    features, classes = _clouds()
    turned = features + np.array([0, 0, 1.5, 0])
    known, ignorant = (
        KnownFeatures.learn(features, classes, [(turned, classes)]),
        KnownFeatures.learn(features, classes),
    )
    upright, over = (each[classes == 1].mean(axis=0)[None] for each in (features, turned))

    check_known(known, upright, limit=10)
    check_known(ignorant, over, limit=10)
    with pytest.raises(NotEvaluableError, match="stand on its head") as refused:
        check_known(known, over, limit=10)
    assert refused.value.code == "image.upside-down"
    with pytest.raises(NotEvaluableError, match="unlike") as refused:
        check_known(known, over + np.array([0, 0, 50, 0]), limit=10)
    assert refused.value.code == "image.unlike-training"


def test_the_limit_lets_the_stated_share_pass() -> None:
    """99 of 100 pass."""
    assert (np.arange(1, 101) <= fit_limit(np.arange(1.0, 101.0), 0.99)).sum() >= 99


def test_known_features_of_another_network_are_refused(tmp_path: Path) -> None:
    """The file says for how many features it is; one that is none is named too."""
    file = tmp_path / "novelty.safetensors"
    known = KnownFeatures.learn(*_clouds())
    pinned = _stored(file, known.to_bytes())

    assert KnownFeatures.load(pinned, 4).means.shape == (2, 4)
    assert KnownFeatures.load(pinned, 4).turned.shape == (0, 4)
    with pytest.raises(BundleError, match="288 features"):
        KnownFeatures.load(pinned, 288)
    with pytest.raises(BundleError, match="cannot be read"):
        KnownFeatures.load(_stored(file, b"none"), 4)
    without_numbers = replace(known, means=np.full_like(known.means, np.nan))
    with pytest.raises(BundleError, match="no number"):
        KnownFeatures.load(_stored(file, without_numbers.to_bytes()), 4)


def test_known_features_that_were_changed_since_they_were_checked_are_refused(tmp_path: Path) -> None:
    """New ones would meet the old limit."""
    features, classes = _clouds()
    pinned = _stored(tmp_path / "novelty.safetensors", KnownFeatures.learn(features, classes).to_bytes())
    pinned.path.write_bytes(KnownFeatures.learn(features + 1, classes).to_bytes())

    with pytest.raises(BundleError, match=r"novelty\.safetensors: was changed after it was checked"):
        KnownFeatures.load(pinned, 4)


def _stored(file: Path, content: bytes) -> Pinned:
    file.write_bytes(content)
    return Pinned(file, hashlib.sha256(content).hexdigest())
