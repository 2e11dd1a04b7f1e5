"""What is fitted on groups that served neither training nor evaluation.

What is known of the last layer's weights (`inference.laplace`), a temperature per level (Guo et al., ICML 2017), the
bounds of label sets (`inference.conformal`), and how far an image may be from what was learnt from
(`inference.novelty`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from inference.bundle import Bundle
from inference.conformal import fit_bounds, rounded_down
from inference.laplace import Drawn, LastLayer, families, predict
from inference.novelty import KnownFeatures, fit_limit
from inference.training.answers import Answers
from inference.training.data import Images

Answered: TypeAlias = tuple[Images, Answers]
"""A part, and what the network says of it."""

COVERAGE = 0.9
"""Share of the cases of each class whose label set is to hold the true one."""
KNOWN_SHARE = 0.995
"""Share of the calibration images that are to count as like those that were learnt from."""
_RANGE = (0.05, 20.0)
_LOG_TEMPERATURE_SPREAD = 0.5
"""Standard deviation before any case is seen: 1 stands beside 0.6 and 1.6."""
_TURNED = 400
"""Training images that are shown turned over, in each way."""


def fit_temperatures(drawn: Drawn, images: Images, parents: Sequence[int]) -> tuple[float, float]:
    """Return the temperatures of the coarse and of the conditional fine scores."""
    coarse = fit_temperature([drawn.coarse], [images.coarse])
    scores, targets = [], []
    for parent, children in families(parents).items():
        inside = images.coarse == parent
        if inside.any():
            scores.append(drawn.fine[parent][:, inside])
            targets.append(np.array([children.index(fine) for fine in images.fine[inside]], dtype=np.int64))
    return coarse, fit_temperature(scores, targets)


def fit_temperature(drawn: Sequence[NDArray[np.float64]], targets: Sequence[NDArray[np.int64]]) -> float:
    """Return the most probable temperature given the classes; 1 without scores.

    Its logarithm is normal around 0 before any case is seen. That hardly counts beside hundreds of cases, but where all
    of them are answered right the likelihood alone would have a temperature of nothing, and certainty.

    Parameters
    ----------
    drawn
        Blocks of (S, N, K) scores: the probabilities are the mean over the S points.
    targets
        The true classes of each block.
    """
    if not drawn:
        return 1.0

    def improbability(log_temperature: float) -> float:
        losses = []
        for block, target in zip(drawn, targets, strict=True):
            own = special.log_softmax(block / np.exp(log_temperature), axis=2)[:, np.arange(len(target)), target]
            losses.append(np.log(len(block)) - special.logsumexp(own, axis=0))  # (N,)
        return float(np.concatenate(losses).sum()) + (log_temperature / _LOG_TEMPERATURE_SPREAD) ** 2 / 2

    low, high = np.log(_RANGE)
    found = optimize.minimize_scalar(improbability, bounds=(low, high), method="bounded")
    return float(np.exp(found.x))


def calibration_table(
    bundle: Bundle, images: Images, answers: Answers, posterior: LastLayer | None
) -> Mapping[str, object]:
    """Return the `[calibration]` table: what is fitted to the answers for the calibration groups.

    Parameters
    ----------
    posterior
        Of the last layer; where there is one, the table also tells the temperatures that would do without it.
    """
    names, parents = [level.name for level in bundle.levels], bundle.parents

    def by_level(values: Sequence[float]) -> dict[str, float]:
        return {name: round(value, 4) for name, value in zip(names, values, strict=True)}

    alone = fit_temperatures(answers.scores.draw(parents, None), images, parents)
    drawn = answers.scores.draw(parents, posterior)
    temperatures = alone if posterior is None else fit_temperatures(drawn, images, parents)
    said = zip(bundle.levels, predict(drawn, parents, temperatures), (images.coarse, images.fine), strict=True)
    bounds = {
        level.name: rounded_down(fit_bounds(each.probabilities, truth, COVERAGE), 5) for level, each, truth in said
    }
    return {
        "images": len(images),
        "groups": len(set(images.groups)),
        "coverage": COVERAGE,
        "temperature": by_level(temperatures),
        **({} if posterior is None else {"temperature_alone": by_level(alone)}),
        "bounds": {
            level.name: dict(zip(level.class_names, bounds[level.name], strict=True)) for level in bundle.levels
        },
    }


def last_layer_table(bundle_dir: Path, posterior: LastLayer, images: Images) -> Mapping[str, object]:
    """Write the posterior beside bundle.toml; return the `[laplace]` table."""
    return {
        **write_pinned(bundle_dir, "laplace", posterior.to_bytes()),
        "images": len(images),
        "prior_precision": {name: round(float(each.prior[0]), 4) for name, each in posterior.named()},
    }


def turned_over(images: Images) -> list[Images]:
    """Return some of the images standing on their heads: turned by 180 degrees, and mirrored top to bottom."""
    at = np.unique(np.linspace(0, len(images) - 1, min(_TURNED, len(images))).astype(int))
    some = replace(images.chosen(at), has_mask=np.zeros(len(at), dtype=np.bool_))
    ways = (some.grey[:, ::-1, ::-1], some.grey[:, ::-1])
    return [replace(some, grey=np.ascontiguousarray(turned)) for turned in ways]


def learn_known(training: Answered, turned: Sequence[Answered]) -> KnownFeatures:
    """Return what the features of the training images are like, by fine class, as they are and turned over."""
    described = [(answers.scores.features, images.fine) for images, answers in (training, *turned)]
    return KnownFeatures.learn(*described[0], described[1:])


def novelty_table(bundle_dir: Path, known: KnownFeatures, answers: Answers) -> Mapping[str, object]:
    """Write the known features beside bundle.toml; return the `[novelty]` table with the limit of these answers."""
    limit = fit_limit(known.distances(answers.scores.features), KNOWN_SHARE)
    pinned = write_pinned(bundle_dir, "novelty", known.to_bytes())
    return {**pinned, "limit": round(limit, 4), "known_share": KNOWN_SHARE}


def write_pinned(bundle_dir: Path, table: str, content: bytes) -> dict[str, str]:
    """Write a file that a table names; return the fields that do.

    Part of its digest stands in its name: it never takes the place of the file that bundle.toml still names.
    """
    digest = hashlib.sha256(content).hexdigest()
    file = bundle_dir / f"{table}-{digest[:8]}.safetensors"
    partial = bundle_dir / f"{table}.partial"
    partial.write_bytes(content)
    partial.replace(file)
    return {"file": file.name, "sha256": digest}


def remove_former(bundle_dir: Path, tables: Mapping[str, Mapping[str, object] | None]) -> None:
    """Remove the files of former calibrations, and of those that were cut off: all that these tables do not name."""
    for name, values in tables.items():
        named = None if values is None else values["file"]
        for pattern in (f"{name}.safetensors", f"{name}-{'[0-9a-f]' * 8}.safetensors", f"{name}.partial"):
            for file in bundle_dir.glob(pattern):
                if file.name != named:
                    file.unlink()
