"""Class probabilities over all weights that the training images allow, against what they approximate."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import integrate, special

from inference.errors import BundleError
from inference.laplace import LastLayer, Siblings, draw, families, predict
from inference.pinned import Pinned
from inference.training.posterior import learn_siblings, most_evident_prior

_PARENTS = (0, 1, 1)
_WIDTH = 5


def _images(count: int = 300, classes: int = 2, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw weights (K, D + 1), features with a 1 (N, D + 1) and the scores that they give."""
    generator = np.random.default_rng(seed)
    weights = generator.normal(0, 0.8, (classes, _WIDTH + 1))
    shown = np.concatenate([generator.normal(0, [3, 2, 1, 0.5, 0.1], (count, _WIDTH)), np.ones((count, 1))], axis=1)
    return weights, shown, shown @ weights.T


def _curvature(scores: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """Return the generalised Gauss-Newton matrix, image by image: (K (D + 1), K (D + 1))."""
    probabilities = special.softmax(scores, axis=1)
    blocks = [np.diag(p) - np.outer(p, p) for p in probabilities]
    return sum(np.kron(block, np.outer(x, x)) for block, x in zip(blocks, shown, strict=True))


def _exact_covariance(scores: np.ndarray, shown: np.ndarray, prior: float, asked: np.ndarray) -> np.ndarray:
    """Return the (K, K) covariance of the scores of one image under the whole posterior, without what all share."""
    covariance = np.linalg.inv(_curvature(scores, shown) + prior * np.eye(scores.shape[1] * shown.shape[1]))
    given = np.kron(np.eye(scores.shape[1]), asked)  # (K, K (D + 1))
    centred = np.eye(scores.shape[1]) - 1 / scores.shape[1]
    return centred @ given @ covariance @ given.T @ centred


def _covariance(siblings: Siblings, asked: np.ndarray) -> np.ndarray:
    spread = siblings.spread(asked[None, :-1])[0]
    return (siblings.directions * spread**2) @ siblings.directions.T


def test_two_siblings_have_the_whole_gauss_newton_posterior() -> None:
    """Of two classes the Kronecker product is exact, also for an image unlike those that were learnt from."""
    weights, shown, scores = _images()
    siblings = learn_siblings(weights, scores, shown, prior=2.0)

    for asked in (shown[0], np.array([0.0, 0, 0, 0, 9, 1])):
        assert _covariance(siblings, asked) == pytest.approx(
            _exact_covariance(scores, shown, 2.0, asked), rel=0.02, abs=1e-5
        )


def test_three_siblings_have_about_that() -> None:
    """Of three it is an approximation: the scores' mean variance is the exact one within a factor of 2."""
    weights, shown, scores = _images(classes=3)
    siblings = learn_siblings(weights, scores, shown, prior=2.0)

    ours = [np.trace(_covariance(siblings, asked)) for asked in shown[:20]]
    exact = [np.trace(_exact_covariance(scores, shown, 2.0, asked)) for asked in shown[:20]]

    assert siblings.directions.shape == (3, 2)
    assert 0.5 < np.mean(ours) / np.mean(exact) < 2


def test_what_the_images_do_not_tell_is_left_to_the_prior() -> None:
    """Few directions are kept of many features, and the spread is as with all of them."""
    generator = np.random.default_rng(1)
    shown = np.concatenate([generator.normal(0, 1, (50, 40)) * 0.8 ** np.arange(40) * 9, np.ones((50, 1))], axis=1)
    scores = shown @ (weights := generator.normal(0, 0.05, (2, 41))).T
    siblings = learn_siblings(weights, scores, shown, prior=5.0)

    assert len(siblings.vectors) < 25
    assert _covariance(siblings, shown[0]) == pytest.approx(
        _exact_covariance(scores, shown, 5.0, shown[0]), rel=0.03, abs=1e-5
    )


def test_the_prior_is_the_one_with_the_greatest_evidence() -> None:
    """It is found where the logarithm of the marginal likelihood, written out, has its peak."""
    weights, shown, scores = _images()
    curvature = _curvature(scores, shown)
    values, vectors = np.linalg.eigh(curvature)
    told = values > 1e-6

    def evidence(prior: float) -> float:
        square = ((vectors[:, told].T @ weights.ravel()) ** 2).sum()
        return float(told.sum() * np.log(prior) - np.log(values[told] + prior).sum() - prior * square) / 2

    found = float(learn_siblings(weights, scores, shown).prior[0])

    assert evidence(found) > max(evidence(found * 1.05), evidence(found / 1.05))
    assert most_evident_prior(np.zeros(3), np.full(3, 100.0)) < 0.01  # large weights need room


def _posterior(prior: float = 0.5) -> LastLayer:
    weights, shown, scores = _images(count=40)
    siblings = learn_siblings(weights, scores, shown, prior)
    return LastLayer(siblings, {1: siblings})


def _asked(posterior: LastLayer | None, temperatures: tuple[float, float] = (1.0, 1.0), scale: float = 1.0):
    coarse, fine = np.array([[0.0, 2.0]]), np.array([[0.0, 1.0, -1.0]])
    features = scale * np.array([[1.0, -2, 1, 1, 3]])
    return predict(draw(coarse, fine, _PARENTS, posterior, features), _PARENTS, temperatures)


def test_the_probability_is_the_mean_over_the_scores() -> None:
    """It is the integral of the sigmoid over the Gaussian of the two scores' difference, to a thousandth."""
    posterior = _posterior()
    spread = float(posterior.coarse.spread(np.array([[1.0, -2, 1, 1, 3]]))[0, 0]) * np.sqrt(2)

    coarse, _ = _asked(posterior, temperatures=(1.3, 1.0))

    def weighed(z: float) -> float:
        return float(special.expit((2 + spread * z) / 1.3) * np.exp(-z * z / 2) / np.sqrt(2 * np.pi))

    assert coarse.probabilities[0, 1] == pytest.approx(integrate.quad(weighed, -10, 10)[0], abs=1e-3)
    assert coarse.probabilities[0, 1] < special.expit(2 / 1.3)


def test_levels_agree_with_and_without_a_posterior() -> None:
    """The kinds of pneumonia sum to pneumonia, and normal is normal; without a posterior as `networks.heads` says."""
    for posterior in (None, _posterior()):
        coarse, fine = (level.probabilities for level in _asked(posterior, (1.3, 0.7)))
        assert fine[:, 1:].sum() == pytest.approx(coarse[0, 1])
        assert fine[0, 0] == pytest.approx(coarse[0, 0])
        assert coarse.sum() == pytest.approx(1)
    _, fine = _asked(None, (1.3, 0.7))
    above, below = special.expit(2 / 1.3), special.expit(2 / 0.7)
    assert fine.probabilities[0] == pytest.approx([1 - above, above * below, above * (1 - below)])


def test_the_models_part_of_the_uncertainty_grows_away_from_what_was_learnt() -> None:
    """Further out the weights matter more; the part never exceeds the whole; without a posterior none is told."""
    near, far = _asked(_posterior(), scale=0.1)[0], _asked(_posterior(), scale=10)[0]

    assert near.epistemic is not None and far.epistemic is not None
    assert 0 <= float(near.epistemic[0]) < float(far.epistemic[0])
    for level in (near, far):
        assert level.epistemic is not None
        assert float(level.epistemic[0]) <= special.entr(level.probabilities).sum() / np.log(2)
    assert [level.epistemic for level in _asked(None)] == [None, None]


def test_a_posterior_is_read_as_it_was_written(tmp_path: Path) -> None:
    """The file gives the same probabilities, digit for digit; one of another network is refused."""
    file, posterior = tmp_path / "laplace.safetensors", _posterior()

    read = LastLayer.load(_stored(file, posterior), _WIDTH, _PARENTS)

    assert _asked(read)[1].probabilities.tolist() == _asked(posterior)[1].probabilities.tolist()
    for width, parents in ((_WIDTH + 1, _PARENTS), (_WIDTH, (0, 1, 1, 1)), (_WIDTH, (0, 1, 1, 2))):
        with pytest.raises(BundleError, match=f"is not of a network with {width} features"):
            LastLayer.load(_stored(file, posterior), width, parents)
    with pytest.raises(BundleError, match="cannot be read"):
        LastLayer.load(_stored(file, posterior), _WIDTH, (0, 0, 1, 1))


_NOTHING, _NAN = np.zeros(0, dtype=np.float32), np.array([np.nan], dtype=np.float32)


@pytest.mark.parametrize(
    "wrong",
    [
        {"prior": np.zeros(1, dtype=np.float32)},
        {"prior": _NOTHING},
        {"prior": _NAN},
        {"prior": np.ones(1, dtype=np.float64)},
        {"prior": np.ones((1, 1), dtype=np.float32)},
        {"strengths": _NOTHING},
        {"strengths": _NOTHING, "directions": np.zeros((2, 0), dtype=np.float32)},
        {"strengths": _NAN},
        {"strengths": -np.ones(1, dtype=np.float32)},
        {"curvatures": _NOTHING},
        {"curvatures": np.ones(7, dtype=np.float32)},
        {"directions": np.full((2, 1), np.inf, dtype=np.float32)},
        {"vectors": np.ones(_WIDTH + 1, dtype=np.float32)},
    ],
)
def test_a_posterior_of_other_shapes_or_without_numbers_is_refused(
    tmp_path: Path, wrong: dict[str, np.ndarray]
) -> None:
    """Otherwise the first study would fail, or be answered with nothing."""
    posterior = _posterior()
    changed = replace(posterior, coarse=replace(posterior.coarse, **wrong))

    with pytest.raises(BundleError, match="is not of a network"):
        LastLayer.load(_stored(tmp_path / "laplace.safetensors", changed), _WIDTH, _PARENTS)


def test_a_posterior_that_was_changed_since_it_was_checked_is_refused(tmp_path: Path) -> None:
    """A new one would meet the old temperatures."""
    pinned = _stored(tmp_path / "laplace.safetensors", _posterior())
    _stored(pinned.path, _posterior(prior=2))

    with pytest.raises(BundleError, match=r"laplace\.safetensors: was changed after it was checked"):
        LastLayer.load(pinned, _WIDTH, _PARENTS)


def _stored(file: Path, posterior: LastLayer) -> Pinned:
    file.write_bytes(posterior.to_bytes())
    return Pinned(file, hashlib.sha256(file.read_bytes()).hexdigest())


def test_only_classes_with_siblings_are_asked() -> None:
    """'Normal' has one child, whose probability is its own."""
    assert families(_PARENTS) == {1: [1, 2]}


def test_nothing_is_known_where_the_scores_are_certain_of_every_image() -> None:
    """Probabilities of 0 and 1 have no curvature: there is no posterior rather than one of NaN."""
    weights, shown, scores = _images()

    assert learn_siblings(weights, 1e4 * np.eye(2)[scores.argmax(axis=1)], shown) is None
