"""A bundle with int8 weights or fewer channels, kept only where it answers as well as the one it was made of."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from inference.bundle import BUNDLE_FILE, ENCODINGS, Bundle, load_bundle
from inference.errors import BundleError
from inference.networks.weights import build_network, load_network, save_quantised_weights, save_weights
from inference.training.evaluation import EvaluationReport
from inference.training.figures import drop_table, write_table
from inference.training.progress import Progress
from inference.training.pruning import SUFFIX, Pruning, fine_tune, prune
from inference.training.run import Report, calibrate, evaluate_images, write_self_test

ACCURACY_FALL = 0.01
"""A fall of coarse or fine accuracy, or of the share that the guards let pass, must be less."""
DICE_FALL = 0.01
"""A fall of the Dice of any segment must be less."""
_ENCODING = "int8"
_INT8_METHOD = "int8 weights, one symmetric scale per output channel"
_NAME_LINE = re.compile(r"^name\s*=.*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Figures:
    """What decides whether a compressed bundle is kept."""

    coarse_accuracy: float
    fine_accuracy: float
    dice: Mapping[str, float]
    """By segment name."""
    answered: float
    """Share of the images that the guards let pass."""

    @classmethod
    def of(cls, evaluation: EvaluationReport) -> Figures:
        """Take them from a whole evaluation."""
        answered = 1 - evaluation.not_evaluable / evaluation.images
        return cls(evaluation.coarse.accuracy, evaluation.fine.accuracy, evaluation.dice, answered)

    def to_dict(self) -> dict[str, object]:
        """Return plain values, rounded."""
        return {
            "coarse_accuracy": round(self.coarse_accuracy, 4),
            "fine_accuracy": round(self.fine_accuracy, 4),
            "dice": {name: round(value, 4) for name, value in self.dice.items()},
            "answered": round(self.answered, 4),
        }

    def falls(self, after: Figures) -> list[str]:
        """Name each figure that falls too far, or of which that is not known, with both values."""
        compared = [
            ("coarse accuracy", self.coarse_accuracy, after.coarse_accuracy, ACCURACY_FALL),
            ("fine accuracy", self.fine_accuracy, after.fine_accuracy, ACCURACY_FALL),
            ("answered share", self.answered, after.answered, ACCURACY_FALL),
            *((f"Dice of {name}", value, after.dice[name], DICE_FALL) for name, value in self.dice.items()),
        ]
        return [
            f"{name} from {then:.4f} to {now:.4f} (allowed: less than {allowed})"
            for name, then, now, allowed in compared
            if not then - now < allowed
        ]


@dataclass(frozen=True, slots=True)
class CompressionReport:
    """A compressed bundle beside the one it was made of."""

    folder: Path
    name: str
    weights_sha256: str
    method: str
    of: str
    of_version: str
    of_sha256: str
    bytes_before: int
    """Size of the weights file."""
    bytes_after: int
    parameters_before: int
    parameters_after: int
    before: Figures
    after: Figures

    def to_table(self) -> dict[str, object]:
        """Return the `[compression]` table of the compressed bundle."""
        return {
            "method": self.method,
            "of": self.of,
            "of_version": self.of_version,
            "of_sha256": self.of_sha256,
            "bytes_before": self.bytes_before,
            "bytes_after": self.bytes_after,
            "parameters_before": self.parameters_before,
            "parameters_after": self.parameters_after,
            "before": self.before.to_dict(),
            "after": self.after.to_dict(),
        }

    def to_dict(self) -> dict[str, object]:
        """Return all of it as plain values."""
        made = {"folder": str(self.folder), "name": self.name, "weights_sha256": self.weights_sha256}
        return {**made, **self.to_table()}

    def to_json(self) -> str:
        """Return all of it as JSON."""
        return json.dumps(self.to_dict(), indent=2)


def compress(  # noqa: PLR0913 -- the options of `hybridmed compress`, all by name
    bundle_dir: Path, data_dir: Path, out_dir: Path, *, device: str, report: Report, pruning: Pruning | None = None
) -> CompressionReport:
    """Write the bundle with int8 weights into the folder `<name>-int8` of `out_dir`, or `<name>-pruned`.

    Both bundles are evaluated on the validation groups first; where the new one is refused, nothing is left behind.
    The model card is not copied: its figures are those of other weights.

    Parameters
    ----------
    pruning
        Take channels out and learn anew, with the bundle as the teacher, instead of int8 weights.

    Raises
    ------
    BundleError
        The bundle is compressed already, the folder exists, or a figure falls too far.
    """
    bundle = load_bundle(bundle_dir)
    if not bundle.levels:
        raise BundleError(f"{bundle.name}: only bundles that classify are compressed")
    if bundle.encoding != ENCODINGS[0]:
        raise BundleError(f"{bundle_dir / BUNDLE_FILE}: weights.encoding: is {bundle.encoding!r} already")
    suffix = _ENCODING if pruning is None else SUFFIX
    folder = out_dir / f"{bundle.name}-{suffix}"
    if folder.exists():
        raise BundleError(f"{folder}: exists already")
    with _staging(out_dir) as staging:
        made = staging / folder.name
        made.mkdir()
        if pruning is None:
            _write_quantised(bundle, made)
        else:
            pruning.check()
            _write_pruned(bundle, made, pruning, data_dir, device, report)
        before = evaluate_images(bundle_dir, data_dir, device=device, report=_during("before", report))
        after = evaluate_images(made, data_dir, device=device, report=_during("after", report), write=True)
        method = _INT8_METHOD if pruning is None else pruning.method
        result = _compared(bundle, load_bundle(made), folder, method, (Figures.of(before), Figures.of(after)))
        if falls := result.before.falls(result.after):
            raise BundleError(f"{bundle.name} is not kept as {suffix}: {'; '.join(falls)}")
        write_table(made / BUNDLE_FILE, "compression", result.to_table())
        made.rename(folder)
    return result


def _write_quantised(bundle: Bundle, folder: Path) -> None:
    """Write the quantised weights, and bundle.toml with their name and digest."""
    weights = folder / bundle.weights_path.name
    save_quantised_weights(load_network(bundle, torch.device("cpu")), weights)
    if bundle.novelty is not None:
        shutil.copyfile(bundle.novelty.path, folder / bundle.novelty.path.name)
    _write_description(bundle, folder, _ENCODING)


def _write_pruned(  # noqa: PLR0913, PLR0917 -- what `compress` was given
    bundle: Bundle, folder: Path, pruning: Pruning, data_dir: Path, device: str, report: Report
) -> None:
    """Write weights with fewer channels that have learnt from the bundle, and bundle.toml calibrated anew."""
    network = load_network(bundle, torch.device("cpu"))
    inner = prune(network, pruning.ratio, bundle.projection.size)
    taught = fine_tune(bundle, network, pruning, data_dir, folder, device=device, report=report)
    save_weights(taught, folder / bundle.weights_path.name)
    shutil.copyfile(bundle.path / BUNDLE_FILE, folder / BUNDLE_FILE)
    drop_table(folder / BUNDLE_FILE, "novelty")  # of other weights; `calibrate` finds it anew
    drop_table(folder / BUNDLE_FILE, "self_test")
    write_table(folder / BUNDLE_FILE, "network", {**bundle.network, "inner": list(inner)})
    _write_description(bundle, folder, ENCODINGS[0])
    calibrate(folder, data_dir, device=device, report=_during("pruned", report))


def _write_description(bundle: Bundle, folder: Path, encoding: str) -> None:
    """Write bundle.toml with the folder's name and the digest of its weights, and what the network says."""
    file, weights = folder / BUNDLE_FILE, folder / bundle.weights_path.name
    text = (file if file.exists() else bundle.path / BUNDLE_FILE).read_text(encoding="utf-8")
    # The first: TOML has the bundle's own name above every table.
    file.write_text(_NAME_LINE.sub(f'name = "{folder.name}"', text, count=1), encoding="utf-8")
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    write_table(file, "weights", {"file": weights.name, "encoding": encoding, "sha256": digest})
    write_self_test(folder)


def _parameters(bundle: Bundle) -> int:
    return sum(parameter.numel() for parameter in build_network(bundle).parameters())


def _compared(
    bundle: Bundle, made: Bundle, folder: Path, method: str, figures: tuple[Figures, Figures]
) -> CompressionReport:
    return CompressionReport(
        folder=folder,
        name=made.name,
        weights_sha256=made.algorithm.weights_digest,
        method=method,
        of=bundle.name,
        of_version=bundle.version,
        of_sha256=bundle.algorithm.weights_digest,
        bytes_before=bundle.weights_path.stat().st_size,
        bytes_after=made.weights_path.stat().st_size,
        parameters_before=_parameters(bundle),
        parameters_after=_parameters(made),
        before=figures[0],
        after=figures[1],
    )


def _during(when: str, report: Report) -> Report:
    """Return a callback that tells the two evaluations apart."""

    def named(step: Progress) -> None:
        report(replace(step, stage=f"{step.stage} {when}"))

    return named


@contextmanager
def _staging(out_dir: Path) -> Iterator[Path]:
    """Give a folder in `out_dir`, a level too deep to be found as a bundle; afterwards remove all that is empty."""
    made = [folder for folder in (out_dir, *out_dir.parents) if not folder.exists()]
    out_dir.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".compress-", dir=out_dir))
    try:
        yield staging
    finally:
        shutil.rmtree(staging)
        for folder in made:
            if not any(folder.iterdir()):
                folder.rmdir()
