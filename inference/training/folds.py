"""Cross-validation of a bundle for projection images: each group is judged once, by a network that has not seen it.

Each fold is a bundle of its own in `folds/fold-<k>`: the same description with `[training] fold = k`, trained,
calibrated and evaluated by the same code. The bundle beside them keeps its weights; the folds say how far its recipe
carries.
"""

from __future__ import annotations

import shutil
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from inference.bundle import BUNDLE_FILE, Bundle, load_bundle
from inference.errors import BundleError
from inference.input_spec import VolumeInput
from inference.training.card import folds_page, write_section
from inference.training.config import read_config
from inference.training.figures import OF_THE_WEIGHTS, drop_table, write_table
from inference.training.progress import Progress
from inference.training.run import evaluate_images, train

FOLDS = "folds"
TABLE = "cross_validation"
_SEED = "seed"
_OF_FOLDS = ("fold", _SEED)
"""Fields of `[training]` that a fold has and the bundle has not."""
_INTERVAL = 0.95
_DIGITS = 4

Report = Callable[[Progress], None]


def train_folds(  # noqa: PLR0913 -- the options of `hybridmed train`, all by name
    bundle_dir: Path,
    data_dir: Path,
    out_dir: Path,
    *,
    device: str,
    epochs: int | None,
    seed: int,
    report: Report,
) -> Path:
    """Train a network for each fold into `out_dir`/folds; a fold that is finished is kept, one cut off goes on.

    Raises
    ------
    BundleError
        The bundle is for volumes, whose folds `train` makes, the data set has no images of a part, or the folds there
        are of another recipe.
    """
    bundle = load_bundle(bundle_dir, verify_weights=False)
    for fold in range(1, _folds(bundle) + 1):
        folder = fold_dir(out_dir, fold)
        shorter = {} if epochs is None else {"training.loop": {"cycles": [epochs]}}
        describe(bundle, folder, {"training": {"fold": fold, _SEED: seed}, **shorter})
        if not is_trained(folder):
            named = renamed(f"fold {fold} ", report)
            train(folder, data_dir, folder, device=device, epochs=None, seed=seed, report=named)
    return out_dir


def evaluate_folds(bundle_dir: Path, data_dir: Path, *, device: str, report: Report) -> dict[str, object]:
    """Judge each fold's network on its own groups; write the figures into bundle.toml and the model card.

    Returns
    -------
    The figures of `EvaluationReport`, each as mean over the folds with its 95 % interval; images and groups in all.

    Raises
    ------
    BundleError
        A fold has not been trained, or by another recipe.
    """
    count = _folds(load_bundle(bundle_dir, verify_weights=False))
    reports = []
    for fold in range(1, count + 1):
        folder = fold_dir(bundle_dir, fold)
        if not is_trained(folder):
            advice = f"`hybridmed train {bundle_dir} --folds --out {bundle_dir}` does it"
            raise BundleError(f"{folder}: fold {fold} is not trained: {advice}")
        of_fold, of_bundle = (_recipe(_read(each / BUNDLE_FILE), _OF_FOLDS) for each in (folder, bundle_dir))
        if of_fold != of_bundle:
            raise BundleError(f"{folder}: fold {fold} was trained by another recipe than the bundle's: remove it")
        named = renamed(f"fold {fold} ", report)
        reports.append(evaluate_images(folder, data_dir, device=device, report=named).to_dict())
    figures = summarised(reports)
    write_table(bundle_dir / BUNDLE_FILE, TABLE, figures)
    write_section(bundle_dir, TABLE, folds_page(figures))
    return figures


def fold_dir(folder: Path, fold: int) -> Path:
    """Return where a fold's bundle lies; folds count from 1."""
    return folder / FOLDS / f"fold-{fold}"


def is_trained(folder: Path) -> bool:
    """Say whether a bundle that `describe` began has come to its end."""
    file = folder / BUNDLE_FILE
    return file.exists() and bool(load_bundle(folder, verify_weights=False).evaluation)


def describe(bundle: Bundle, folder: Path, changes: Mapping[str, Mapping[str, object]]) -> None:
    """Write a bundle without weights into `folder`: the same with some fields changed; what is there already stays.

    Parameters
    ----------
    changes
        Fields by table, sub-tables as `training.loop`; what is not named stays.

    Raises
    ------
    BundleError
        What is there was made of another description.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file, partial = folder / BUNDLE_FILE, folder / f"{BUNDLE_FILE}.partial"
    shutil.copyfile(bundle.path / BUNDLE_FILE, partial)
    for table in OF_THE_WEIGHTS:
        drop_table(partial, table)
    described = _read(partial)
    for place, fields in changes.items():
        name, *inner = place.split(".")
        target = described[name]
        for each in inner:
            target = target.setdefault(each, {})
        target.update(fields)
        write_table(partial, name, described[name])
    if not file.exists():
        partial.replace(file)
        return
    partial.unlink()
    if _recipe(_read(file)) != _recipe(described):
        raise BundleError(f"{folder}: was made of another description: remove it, or choose another --out")


def _recipe(described: Mapping[str, Any], without: Sequence[str] = ()) -> dict[str, Any]:
    """Return all of a description that does not come from its weights, and of its training not the fields `without`."""
    kept = {name: value for name, value in described.items() if name not in {*OF_THE_WEIGHTS, "weights"}}
    training = {name: value for name, value in described["training"].items() if name not in without}
    return {**kept, "training": training}


def _read(file: Path) -> dict[str, Any]:
    return tomllib.loads(file.read_text(encoding="utf-8"))


def summarised(reports: Sequence[Mapping[str, object]]) -> dict[str, object]:
    """Return figures of the same shape as one with mean and interval over them all.

    The interval is Student's t over the folds: wide with few, and somewhat too narrow still, since the folds share
    most of what they learnt from (Bengio and Grandvalet, JMLR 2004).
    """
    whole = {
        "folds": len(reports),
        **{name: sum(int(str(each[name])) for each in reports) for name in ("images", "groups", "not_evaluable")},
    }
    rest = [{name: value for name, value in each.items() if name not in {*whole, "weights_sha256"}} for each in reports]
    return {**whole, **_over(rest)}


def interval(values: Sequence[float]) -> dict[str, float]:
    """Return mean and 95 % interval of a figure that each fold gives."""
    mean, half = float(np.mean(values)), 0.0
    if len(values) > 1:
        quantile = stats.t.ppf((1 + _INTERVAL) / 2, len(values) - 1)
        half = float(quantile * np.std(values, ddof=1) / np.sqrt(len(values)))
    return {"mean": round(mean, _DIGITS), "low": round(mean - half, _DIGITS), "high": round(mean + half, _DIGITS)}


def _over(reports: Sequence[Mapping[str, object]]) -> dict[str, object]:
    summary: dict[str, object] = {}
    for name, first in reports[0].items():
        values = [each[name] for each in reports]
        if isinstance(first, Mapping):
            summary[name] = _over([value for value in values if isinstance(value, Mapping)])
        else:
            summary[name] = interval([float(str(value)) for value in values])
    return summary


def _folds(bundle: Bundle) -> int:
    if isinstance(bundle.input, VolumeInput):
        raise BundleError(f"{bundle.name}: is for volumes: train and evaluate cross-validate it in any case")
    return read_config(bundle).folds


def renamed(prefix: str, report: Report) -> Report:
    """Return a callback that tells whose progress it is."""
    return lambda step: report(replace(step, stage=f"{prefix}{step.stage}"))
