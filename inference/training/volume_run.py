"""Train and evaluate a bundle for volumes: what the command line calls.

`train` first cross-validates: a network for each fold, trained without the fold's cases and judged on them. The network
that ships is trained on all cases, in the same way; its own figures are the cross-validation's, since no case is left
to judge it by. The folds' weights lie beside its own, so that `evaluate` finds the same figures again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from inference.bundle import Bundle
from inference.device import resolve_device
from inference.errors import BundleError
from inference.networks.hybridmednet3d import HybridMedNet3d
from inference.networks.weights import build_volume_network, load_volume_network, save_weights
from inference.training.progress import Progress
from inference.training.run_log import RunLog
from inference.training.volume_augmentation import LabelledGrid
from inference.training.volume_config import VolumeTrainingConfig, read_volume_config
from inference.training.volume_data import VolumeCase, folds_of, labelled_grid, load_cases
from inference.training.volume_loop import VolumeTask, fit_volumes
from inference.training.volume_scores import CaseScores, VolumeReport, score_case
from inference.volume_labels import find_labels, onto_grid

Report = Callable[[Progress], None]

FOLDS = "folds"


def train_volumes(  # noqa: PLR0913 -- the options of `hybridmed train`, all by name
    bundle: Bundle, data_dir: Path, out_dir: Path, *, device: str, epochs: int | None, seed: int, report: Report
) -> None:
    """Train the folds' networks and the final one; their weights into `out_dir`.

    What is there already is kept: finished folds and, by `out_dir`/checkpoint-*.pt, the one that was interrupted.
    """
    config = read_volume_config(bundle, epochs)
    cases = _load(bundle, config, data_dir, report)
    grids = [labelled_grid(case, bundle.volume, len(bundle.segments)) for case in cases]
    (out_dir / FOLDS).mkdir(parents=True, exist_ok=True)
    folds = folds_of(cases, config.folds, config.split_seed)
    on, settings = str(resolve_device(device)), asdict(config)
    with RunLog(out_dir, bundle=bundle.name, settings=settings, seed=seed, device=on, report=report) as log:
        for number, held in enumerate(folds, start=1):
            rest = [grid for index, grid in enumerate(grids) if index not in set(held)]
            weights = _fold_file(out_dir, number)
            _train_one(bundle, config, rest, weights, seed=seed, device=device, stage=f"fold {number}", report=log)
            log.wrote(f"fold {number}", weights)
        weights = out_dir / bundle.weights_path.name
        _train_one(bundle, config, grids, weights, seed=seed, device=device, stage="train", report=log)
        log.wrote("train", weights)


def evaluate_volumes(bundle: Bundle, data_dir: Path, *, device: str, report: Report) -> VolumeReport:
    """Judge each fold's network on the cases that it was not trained on.

    Raises
    ------
    BundleError
        The folds' weights are not beside the bundle's.
    """
    config = read_volume_config(bundle)
    cases = _load(bundle, config, data_dir, report)
    scores: list[CaseScores] = []
    for number, held in enumerate(folds_of(cases, config.folds, config.split_seed), start=1):
        weights = _fold_file(bundle.path, number)
        if not weights.exists():
            raise BundleError(f"{weights}: is missing: `hybridmed train {bundle.name}` makes it")
        network = load_volume_network(bundle, resolve_device(device), weights)
        for index in held:
            scores.append(_judge(bundle, network, cases[index], number))
            report(Progress("evaluate", len(scores), len(cases)))
    return VolumeReport(
        bundle.algorithm.weights_digest, tuple(segment.name for segment in bundle.segments), tuple(scores)
    )


def _load(bundle: Bundle, config: VolumeTrainingConfig, data_dir: Path, report: Report) -> list[VolumeCase]:
    return load_cases(data_dir, bundle, config.labels, lambda done, total: report(Progress("images", done, total)))


def _judge(bundle: Bundle, network: HybridMedNet3d, case: VolumeCase, fold: int) -> CaseScores:
    volume = onto_grid(case.voxels, case.affine_lps, bundle.volume)
    found = find_labels(network, volume, bundle.volume, case.voxels, case.affine_lps)
    return score_case(case, found.numbers, len(bundle.segments), fold)


def _train_one(  # noqa: PLR0913 -- one call's worth of a run, all by name
    bundle: Bundle,
    config: VolumeTrainingConfig,
    cases: Sequence[LabelledGrid],
    weights: Path,
    *,
    seed: int,
    device: str,
    stage: str,
    report: Report,
) -> None:
    """Train one network from scratch unless its weights are there."""
    if weights.exists() and stage != "train":
        return
    torch.manual_seed(seed)
    patch = config.loop.patch or bundle.volume.patch
    task = VolumeTask(
        cases=cases,
        patch=(patch[0], patch[1], patch[2]),
        loop=config.loop,
        augmentation=config.augmentation,
        seed=seed,
        stage=stage,
    )
    checkpoint = weights.with_name(f"checkpoint-{weights.stem}.pt")
    network = build_volume_network(bundle)
    trained = fit_volumes(network, task, checkpoint, device=resolve_device(device), report=report)
    save_weights(trained, weights)
    checkpoint.unlink()


def _fold_file(folder: Path, number: int) -> Path:
    return folder / FOLDS / f"fold-{number}.safetensors"
