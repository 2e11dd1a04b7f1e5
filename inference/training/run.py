"""Train, calibrate and evaluate a bundle of either kind: what the command line calls.

For projection images `data_dir` holds `labels.csv`, `images/` and `masks/`. Which groups serve which purpose is said by
the bundle, so all three agree, whoever runs them and when. Bundles for volumes go to `volume_run`.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from inference.bundle import BUNDLE_FILE, ENCODINGS, Bundle, load_bundle
from inference.device import resolve_device
from inference.errors import BundleError
from inference.foreign.spec import NOBODY, Allowance
from inference.input_spec import VolumeInput
from inference.laplace import load_last_layer
from inference.networks.config import FREE
from inference.networks.hybridmednet import HybridMedNet
from inference.networks.serving import as_served
from inference.networks.weights import build_network, load_network, load_volume_network, save_weights
from inference.self_test import self_test_table
from inference.training.answers import ask
from inference.training.calibration import (
    Answered,
    calibration_table,
    last_layer_table,
    learn_known,
    novelty_table,
    remove_former,
    turned_over,
)
from inference.training.card import CARD, drop_sections
from inference.training.config import TrainingConfig, read_config
from inference.training.data import Images, LabelledImage, Part, load_images, mean_aspect, read_labels
from inference.training.evaluation import AspectTable, EvaluationReport, Said, judge
from inference.training.figures import OF_THE_WEIGHTS, drop_table, write_digest, write_table, write_tables
from inference.training.loop import Task, fit
from inference.training.posterior import learn_last_layer
from inference.training.progress import Progress
from inference.training.run_log import RunLog
from inference.training.volume_run import evaluate_volumes, train_volumes
from inference.training.volume_scores import VolumeReport
from inference.training.watching import watching

Report = Callable[[Progress], None]

CHECKPOINT = "checkpoint.pt"


def train(  # noqa: PLR0913 -- the options of `hybridmed train`, all by name
    bundle_dir: Path,
    data_dir: Path,
    out_dir: Path,
    *,
    device: str,
    epochs: int | None,
    seed: int,
    report: Report,
) -> Path:
    """Train the bundle's network and write a bundle with its weights, calibration and evaluation into `out_dir`.

    Goes on from `out_dir`/checkpoint.pt where an earlier run with the same seed and cycles was interrupted. The result
    appears when all of it is done; `out_dir` may be `bundle_dir` itself.

    Parameters
    ----------
    epochs
        None takes the bundle's own cycles; a number makes one cycle of them.

    Returns
    -------
    `out_dir`.

    Raises
    ------
    BundleError
        The bundle does not say how to train it, or the data set has no images of a part.
    """
    bundle = load_bundle(bundle_dir, verify_weights=False)
    out_dir.mkdir(parents=True, exist_ok=True)
    if isinstance(bundle.input, VolumeInput):
        train_volumes(bundle, data_dir, out_dir, device=device, epochs=epochs, seed=seed, report=report)
        _write_bundle(bundle, out_dir)
        evaluate(out_dir, data_dir, device=device, report=report, write=True)
    else:
        train_network(bundle, data_dir, out_dir, device=device, epochs=epochs, seed=seed, report=report)
        calibrate(out_dir, data_dir, device=device, report=report)
        evaluate(out_dir, data_dir, device=device, report=report, write=True)
        (out_dir / CHECKPOINT).unlink()
    return out_dir


def train_network(  # noqa: PLR0913 -- the options of `hybridmed train`, all by name
    bundle: Bundle, data_dir: Path, out_dir: Path, *, device: str, epochs: int | None, seed: int, report: Report
) -> None:
    """Train the network of a bundle for projection images; write the bundle, neither calibrated nor evaluated.

    The checkpoint stays, so that nothing is trained again where what follows is cut off.
    """
    if bundle.encoding != ENCODINGS[0]:
        place = f"{bundle.path / BUNDLE_FILE}: weights.encoding"
        raise BundleError(f"{place}: is {bundle.encoding!r}: what is trained is the bundle that it was made of")
    config = read_config(bundle)
    _check_heads(bundle, config)
    if epochs is not None:
        config = replace(config, loop=replace(config.loop, cycles=(epochs,)))
    images = load_part(bundle, config, data_dir, Part.TRAINING, report)
    torch.manual_seed(seed)
    network = build_network(bundle)
    task = Task(
        images=images,
        parents=bundle.parents,
        size=bundle.projection.size,
        margin=bundle.projection.margin,
        loop=config.loop,
        augmentation=config.augmentation,
        loss=config.loss,
        seed=seed,
        teacher=_teacher(bundle, config),
        watch=watching(bundle, load_part(bundle, config, data_dir, Part.CALIBRATION, report)),
    )
    checkpoint, on = out_dir / CHECKPOINT, resolve_device(device)
    settings = asdict(config)
    with RunLog(out_dir, bundle=bundle.name, settings=settings, seed=seed, device=str(on), report=report) as log:
        trained = fit(network, task, checkpoint, device=on, report=log)
        save_weights(trained, out_dir / bundle.weights_path.name)
        log.wrote("train", out_dir / bundle.weights_path.name)
    _write_bundle(bundle, out_dir)


def _check_heads(bundle: Bundle, config: TrainingConfig) -> None:
    """Raise BundleError where a part of the loss is of other heads than the network's."""
    for name, is_of_heads, needed in (
        ("consistency", bundle.network.get("hierarchy") == FREE, f'network.hierarchy = "{FREE}"'),
        ("evenness", bool(bundle.network.get("experts")), "network.experts"),
    ):
        if name in config.loss.weights and not is_of_heads:
            raise BundleError(f"{bundle.path / BUNDLE_FILE}: training.loss.{name}: needs {needed}")


def _teacher(bundle: Bundle, config: TrainingConfig) -> HybridMedNet | None:
    """Return the network whose answers are learnt, too; it must answer the same levels and segments."""
    if not config.loss.distillation:
        return None
    teacher = load_bundle(bundle.path / config.teacher)
    told = [[level.class_names for level in each.levels] for each in (bundle, teacher)]
    if told[0] != told[1] or len(bundle.segments) != len(teacher.segments):
        place = f"{bundle.path / BUNDLE_FILE}: training.teacher"
        raise BundleError(f"{place}: {teacher.name} has other classes or segments")
    if read_config(teacher).split != config.split:
        raise BundleError(f"{bundle.path / BUNDLE_FILE}: training.teacher: {teacher.name} learnt from other groups")
    return load_network(teacher, torch.device("cpu"))


def _write_bundle(bundle: Bundle, out_dir: Path) -> None:
    """Copy bundle.toml and the model card beside the new weights; write the weights' digest and the self-test."""
    if out_dir.resolve() != bundle.path.resolve():
        for name in (BUNDLE_FILE, CARD):
            if (bundle.path / name).exists():
                shutil.copyfile(bundle.path / name, out_dir / name)
    for name in OF_THE_WEIGHTS:
        drop_table(out_dir / BUNDLE_FILE, name)
    drop_sections(out_dir)
    weights = out_dir / bundle.weights_path.name
    write_digest(out_dir / BUNDLE_FILE, hashlib.sha256(weights.read_bytes()).hexdigest())
    write_self_test(out_dir)


def write_self_test(bundle_dir: Path, allowance: Allowance = NOBODY) -> None:
    """Write what the network says of the made-up input into bundle.toml."""
    bundle, cpu = load_bundle(bundle_dir, allowance=allowance), torch.device("cpu")
    is_volume = isinstance(bundle.input, VolumeInput)
    network = load_volume_network(bundle, cpu) if is_volume else load_network(bundle, cpu)
    write_table(bundle_dir / BUNDLE_FILE, "self_test", self_test_table(bundle, network))


def calibrate(bundle_dir: Path, data_dir: Path, *, device: str, report: Report, allowance: Allowance = NOBODY) -> None:
    """Fit what makes the bundle's probabilities trustworthy, and write it into bundle.toml and files beside it.

    On the training groups: what is known of linear heads' weights, and what the features are like. Then on the
    calibration groups: the temperature of each level, the least probability of each class in label sets, and how far
    an image may be from the training images. The figures of its evaluation go: they are of the former calibration.

    Cut off at any moment, it leaves the bundle as it was or calibrated anew: bundle.toml is replaced once, and names
    either the former files or the new ones, which lie beside each other until then.

    Raises
    ------
    BundleError
        The bundle is for volumes: it answers with outlines, and no probability of its is reported.
    """
    bundle = load_bundle(bundle_dir, allowance=allowance)
    if not bundle.levels:
        raise BundleError(f"{bundle.name}: has no levels whose probabilities could be calibrated")
    config, file = read_config(bundle), bundle_dir / BUNDLE_FILE
    network = as_served(load_network(bundle, resolve_device(device)))

    def answered(images: Images, stage: str) -> Answered:
        return images, ask(network, images, bundle, lambda done, total: report(Progress(stage, done, total)))

    images, answers = answered(load_part(bundle, config, data_dir, Part.CALIBRATION, report), "calibrate")
    training = answered(load_part(bundle, config, data_dir, Part.TRAINING, report), "describe")
    turned = [answered(each, "describe turned over") for each in turned_over(training[0])]
    posterior = learn_last_layer(network, *training, bundle.parents)
    calibration = calibration_table(bundle, images, answers, posterior)
    known = learn_known(training, turned)
    beside = {
        "laplace": None if posterior is None else last_layer_table(bundle_dir, posterior, training[0]),
        "novelty": novelty_table(bundle_dir, known, answers),
    }
    write_tables(file, {**beside, "calibration": calibration, "evaluation": None})
    remove_former(bundle_dir, beside)


def evaluate(  # noqa: PLR0913 -- the options of `hybridmed evaluate`, all by name
    bundle_dir: Path,
    data_dir: Path,
    *,
    device: str,
    report: Report,
    write: bool = False,
    plots: Path | None = None,
    allowance: Allowance = NOBODY,
) -> EvaluationReport | VolumeReport:
    """Evaluate a bundle on cases that it was not trained on.

    Parameters
    ----------
    write
        Write the figures into bundle.toml, too.
    plots
        Folder for pictures of them.
    allowance
        Which bundles whose weights are programs may run.

    Raises
    ------
    BundleError
        There are pictures of the probabilities of bundles for images alone.
    """
    bundle = load_bundle(bundle_dir, allowance=allowance)
    if not isinstance(bundle.input, VolumeInput):
        return evaluate_images(
            bundle_dir, data_dir, device=device, report=report, write=write, plots=plots, allowance=allowance
        )
    if plots is not None:
        raise BundleError(f"{bundle.name}: has no levels whose probabilities could be drawn")
    result = evaluate_volumes(bundle, data_dir, device=device, report=report)
    if write:
        write_table(bundle_dir / BUNDLE_FILE, "evaluation", result.to_dict())
    return result


def evaluate_images(  # noqa: PLR0913 -- as `evaluate`
    bundle_dir: Path,
    data_dir: Path,
    *,
    device: str,
    report: Report,
    write: bool = False,
    plots: Path | None = None,
    allowance: Allowance = NOBODY,
) -> EvaluationReport:
    """Evaluate a bundle for projection images on its validation groups; as `evaluate`."""
    bundle = load_bundle(bundle_dir, allowance=allowance)
    config = read_config(bundle)
    images = load_part(bundle, config, data_dir, Part.VALIDATION, report)
    network = as_served(load_network(bundle, resolve_device(device)))
    answers = ask(
        network, images, bundle, lambda done, total: report(Progress("evaluate", done, total)), hide_aspect=True
    )
    posterior = load_last_layer(bundle, network.described_width)
    result = judge(bundle, images, answers, _aspects(bundle, config, data_dir), posterior)
    if write:
        write_table(bundle_dir / BUNDLE_FILE, "evaluation", result.to_dict())
    if plots is not None:
        from inference.training.plots import write_plots  # noqa: PLC0415 # matplotlib is slow to load

        write_plots(plots, bundle, images, Said.of(bundle, answers.scores, posterior), result.label_sets)
    return result


def _part(config: TrainingConfig, labels: tuple[LabelledImage, ...], part: Part) -> list[LabelledImage]:
    return [label for label in labels if config.part_of(label.group) is part]


def load_part(bundle: Bundle, config: TrainingConfig, data_dir: Path, part: Part, report: Report) -> Images:
    """Decode the images of a part; BundleError where it has none."""
    labels = read_labels(data_dir, config.least_mask_confidence)
    chosen = _part(config, labels, part)
    if not chosen:
        raise BundleError(f"{data_dir / 'labels.csv'}: no group falls into the {part.value} part")
    return load_images(
        data_dir,
        chosen,
        bundle,
        mean_aspect=mean_aspect(labels),
        report=lambda done, total: report(Progress("images", done, total)),
    )


def _aspects(bundle: Bundle, config: TrainingConfig, data_dir: Path) -> AspectTable:
    """Return the known aspect ratios of the training part, read from the labels alone."""
    labels = _part(config, read_labels(data_dir, config.least_mask_confidence), Part.TRAINING)
    known = [label for label in labels if label.aspect is not None]
    coarse, fine = (level.class_names for level in bundle.levels)
    return AspectTable(
        aspects=np.array([label.aspect for label in known], dtype=np.float64),
        coarse=np.array([coarse.index(label.coarse) for label in known], dtype=np.int64),
        fine=np.array([fine.index(label.fine) for label in known], dtype=np.int64),
    )
