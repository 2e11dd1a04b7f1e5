"""What each part of the network is worth: variants that grow by one part, on the same folds.

The variants are small: fewer epochs, smaller images and fewer folds than the bundle's own, as the table says, so the
figures are for comparison among each other and no other. Each variant of each fold is a bundle in a folder of its own;
what is finished is kept, so that a run that was cut off goes on.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from inference.bundle import BUNDLE_FILE, Bundle, load_bundle
from inference.errors import BundleError
from inference.input_spec import VolumeInput
from inference.networks.config import HybridMedNetConfig
from inference.training.card import ablation_page, write_section
from inference.training.config import TrainingConfig, read_config
from inference.training.figures import write_digest, write_table
from inference.training.folds import describe, interval, is_trained, renamed
from inference.training.progress import Progress
from inference.training.run import CHECKPOINT, calibrate, evaluate_images, train_network

TABLE = "ablation"

Report = Callable[[Progress], None]
Changes = Mapping[str, Mapping[str, object]]


@dataclass(frozen=True, slots=True)
class Extent:
    """How much is trained for the comparison."""

    folds: int = 3
    """The first so many of the bundle's."""
    epochs: int = 6
    size: int = 64
    """Side of the images."""


@dataclass(frozen=True, slots=True)
class _Variant:
    name: str
    folder: str
    changes: Changes
    """Against the bundle."""
    calibrates: str = ""
    """Folder of the variant that this one is, calibrated; empty: this one is trained."""


def ablate(  # noqa: PLR0913 -- the options of `hybridmed evaluate --ablation`, all by name
    bundle_dir: Path,
    data_dir: Path,
    out_dir: Path,
    *,
    extent: Extent,
    device: str,
    report: Report,
    seed: int = 1,
) -> dict[str, object]:
    """Train and judge every variant on every fold; write the figures into bundle.toml and the model card.

    Parameters
    ----------
    out_dir
        Where the variants' bundles are made.

    Returns
    -------
    The extent, and by variant the figures of `_ROWS` as mean over the folds with 95 % interval.

    Raises
    ------
    BundleError
        The bundle is for volumes, or there are fewer folds.
    """
    bundle = load_bundle(bundle_dir, verify_weights=False)
    if isinstance(bundle.input, VolumeInput):
        raise BundleError(f"{bundle.name}: is for volumes: the ablation compares parts of networks for images")
    config = read_config(bundle)
    if not 1 <= extent.folds <= config.folds:
        raise BundleError(f"{bundle.name}: has {config.folds} folds, not {extent.folds}")
    found: dict[str, list[Mapping[str, float]]] = {}
    for fold in range(1, extent.folds + 1):
        for variant in _variants(bundle, config, extent, fold, seed):
            named = renamed(f"fold {fold} {variant.name} ", report)
            place = out_dir / f"fold-{fold}"
            figures = _judged(bundle, variant, place, data_dir, device=device, seed=seed, report=named)
            found.setdefault(variant.folder, []).append(figures)
    rows = {
        name: {figure: interval([each[figure] for each in of_folds]) for figure in _ROWS}
        for name, of_folds in found.items()
    }
    table = {"folds": extent.folds, "epochs": extent.epochs, "size": extent.size, "variants": rows}
    write_table(bundle_dir / BUNDLE_FILE, TABLE, table)
    write_section(bundle_dir, TABLE, ablation_page(table))
    return table


_ROWS: Mapping[str, tuple[str, str]] = {
    "coarse_auc": ("coarse", "auc"),
    "coarse_accuracy": ("coarse", "accuracy"),
    "fine_auc": ("fine", "auc"),
    "accuracy_all_classes": ("fine", "accuracy_all_classes"),
    "calibration_error": ("fine", "calibration_error"),
}
"""Figures of the table, and where an `EvaluationReport` has them."""


def _variants(bundle: Bundle, config: TrainingConfig, extent: Extent, fold: int, seed: int) -> Iterator[_Variant]:
    """Give the variants, each with one part more; the last is the one before it, calibrated."""
    small: dict[str, Mapping[str, object]] = {
        "input": {"size": extent.size},
        "training": {"fold": fold, "seed": seed},
        "training.loop": {"cycles": [extent.epochs], "small_epochs": 0},
    }
    own = HybridMedNetConfig.from_table(bundle.network)
    network: dict[str, object] = {"scales": [1.0], "attention": "none", "hierarchy": False}
    loss: dict[str, object] = {"coarse": 0.0, "agreement": 0.0, "consistency": 0.0}
    tied = {"coarse": config.loss.coarse, "consistency": config.loss.consistency}
    steps: tuple[tuple[str, str, Mapping[str, object], Mapping[str, object]], ...] = (
        ("base", "base", {}, {}),
        ("+ multi-scale", "multi-scale", {"scales": list(own.scales)}, {"agreement": config.loss.agreement}),
        ("+ attention", "attention", {"attention": own.attention}, {}),
        ("+ hierarchy", "hierarchy", {"hierarchy": own.hierarchy or True}, tied),
    )
    for name, folder, parts, losses in steps:
        network |= parts
        loss |= losses
        changes = {**small, "network": dict(network), "training.loss": dict(loss)}
        yield _Variant(name, folder, changes)
    yield _Variant("+ calibration", "calibration", changes, calibrates=folder)


def _judged(  # noqa: PLR0913 -- one variant's worth of a run, by name
    bundle: Bundle, variant: _Variant, place: Path, data_dir: Path, *, device: str, seed: int, report: Report
) -> dict[str, float]:
    """Make a variant in its folder of `place` where that is still to be done; return its figures."""
    folder = place / variant.folder
    describe(bundle, folder, variant.changes)
    if not is_trained(folder):
        if variant.calibrates:
            _copy_network(place / variant.calibrates, folder)
            calibrate(folder, data_dir, device=device, report=report)
        else:
            made = load_bundle(folder, verify_weights=False)
            train_network(made, data_dir, folder, device=device, epochs=None, seed=seed, report=report)
        evaluate_images(folder, data_dir, device=device, report=report, write=True)
        (folder / CHECKPOINT).unlink(missing_ok=True)
    figures = load_bundle(folder, verify_weights=False).evaluation
    return {name: _figure(figures, level, figure) for name, (level, figure) in _ROWS.items()}


def _copy_network(source: Path, folder: Path) -> None:
    """Copy weights, with their digest, into a bundle that is described."""
    weights = load_bundle(source).weights_path
    shutil.copyfile(weights, folder / weights.name)
    write_digest(folder / BUNDLE_FILE, hashlib.sha256(weights.read_bytes()).hexdigest())


def _figure(figures: Mapping[str, object], level: str, name: str) -> float:
    of_level = figures[level]
    assert isinstance(of_level, Mapping)  # noqa: S101 -- as `EvaluationReport.to_dict` writes it
    return float(of_level[name])
