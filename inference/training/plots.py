"""Pictures of an evaluation: reliability of each level before and after calibration, label sets, ROC.

Reliability diagrams after Guo et al., "On Calibration of Modern Neural Networks", ICML 2017: in each bin of the top
probability the share of right answers, which lies on the diagonal where probabilities are honest, and below it how
many images the bin holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from inference.bundle import Bundle
from inference.level import Level
from inference.training.data import Images
from inference.training.evaluation import LabelSetFigures, Said
from inference.training.scores import auc, calibration_error, reliability, roc

_SALT = "hybridmed"
"""Of the identifiers in an SVG: the same figures give the same file."""
_BINS = 15
_INK, _HONEST, _FILL = "#1f4e79", "#888888", "#9dc3e6"
_WORDS = {"uncalibrated": "as trained", "temperature": "temperature", "laplace": "Laplace and temperature"}


def write_plots(
    folder: Path, bundle: Bundle, images: Images, said: Said, label_sets: Mapping[str, LabelSetFigures]
) -> list[Path]:
    """Write reliability diagrams and ROC curves of each level, and the label sets' coverage, as SVG.

    Returns
    -------
    The files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for index, (level, truth) in enumerate(zip(bundle.levels, (images.coarse, images.fine), strict=True)):
        steps = {name: levels[index].probabilities for name, levels in said.steps.items()}
        files.append(_write(_reliability(level, steps, truth), folder / f"reliability-{level.name}.svg"))
        files.append(_write(_roc(level, said.served[index], truth), folder / f"roc-{level.name}.svg"))
    if label_sets:
        files.append(_write(_label_sets(label_sets), folder / "label-sets.svg"))
    return files


def _write(figure: Figure, file: Path) -> Path:
    with mpl.rc_context({"svg.hashsalt": _SALT}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file


def _reliability(level: Level, steps: Mapping[str, NDArray[np.float64]], truth: NDArray[np.int64]) -> Figure:
    figure = Figure(figsize=(3.6 * len(steps), 4.8), layout="constrained")
    axes = figure.subplots(2, len(steps), sharex=True, sharey="row", height_ratios=(3, 1), squeeze=False)
    for column, (name, probabilities) in enumerate(steps.items()):
        _draw_bins(axes[0, column], axes[1, column], probabilities, truth)
        axes[0, column].set_title(f"{_WORDS[name]}\nECE {calibration_error(probabilities, truth, _BINS):.4f}")
    axes[0, 0].set_ylabel("share of right answers")
    axes[1, 0].set_ylabel("images")
    figure.suptitle(f"Reliability of the level '{level.name}', {len(truth)} images")
    return figure


def _draw_bins(above: Axes, below: Axes, probabilities: NDArray[np.float64], truth: NDArray[np.int64]) -> None:
    told = reliability(probabilities, truth, _BINS)
    places, width = [(each.index + 0.5) / _BINS for each in told], 1 / _BINS
    above.bar(places, [each.accuracy for each in told], width, color=_FILL, edgecolor=_INK)
    above.plot([each.confidence for each in told], [each.accuracy for each in told], "o", color=_INK, markersize=3)
    above.plot([0, 1], [0, 1], "--", color=_HONEST)
    above.set(xlim=(0, 1), ylim=(0, 1.08))
    for place, each in zip(places, told, strict=True):
        above.annotate(str(each.count), (place, each.accuracy + 0.01), ha="center", va="bottom", fontsize=6)
    below.bar(places, [each.count for each in told], width, color=_FILL, edgecolor=_INK)
    below.set_xlabel("probability of the answer")


def _roc(level: Level, probabilities: NDArray[np.float64], truth: NDArray[np.int64]) -> Figure:
    """Draw each class against the rest; of two classes the second, whose curve says all."""
    figure = Figure(figsize=(4.6, 4.6), layout="constrained")
    axes: Axes = figure.subplots()
    names = level.class_names
    for index in range(len(names)) if len(names) > 2 else (1,):  # noqa: PLR2004 -- two classes are one question
        false, true = roc(truth == index, probabilities[:, index])
        area = auc(truth == index, probabilities[:, index])
        axes.plot(false, true, label=f"{names[index]}: AUC {area:.4f}")
    axes.plot([0, 1], [0, 1], "--", color=_HONEST)
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), xlabel="1 - specificity", ylabel="sensitivity")
    axes.set_title(f"ROC of the level '{level.name}', {len(truth)} images")
    axes.legend(loc="lower right")
    return figure


def _label_sets(label_sets: Mapping[str, LabelSetFigures]) -> Figure:
    figure = Figure(figsize=(4.6, 3.6), layout="constrained")
    axes: Axes = figure.subplots()
    places, names = np.arange(len(label_sets), dtype=np.float64), list(label_sets)
    told = list(label_sets.values())
    _bars(axes, places - 0.2, [each.coverage for each in told], "all images", _FILL)
    _bars(axes, places + 0.2, [each.least_class_coverage for each in told], "worst class", "#c5e0b4")
    stated = told[0].stated_coverage
    axes.axhline(stated, linestyle="--", color=_HONEST, label=f"stated: {stated:g}")
    axes.set_xticks(
        places,
        [f"{name}\n{each.mean_size:.2f} classes in a set" for name, each in zip(names, told, strict=True)],
    )
    axes.set(ylim=(0, 1.3), ylabel="sets that hold the true class")
    axes.legend(loc="upper center", ncols=3, fontsize=8)
    return figure


def _bars(axes: Axes, places: NDArray[np.floating[Any]], heights: Sequence[float], label: str, color: str) -> None:
    bars = axes.bar(places, heights, 0.36, color=color, edgecolor=_INK, label=label)
    axes.bar_label(bars, fmt="%.3f", fontsize=8)
