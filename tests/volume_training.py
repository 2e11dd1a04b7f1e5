"""A tiny made-up data set of labelled volumes, and a bundle for volumes small enough to be trained on it in seconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np

from inference.bundle import default_bundle_dir
from inference.training.progress import Progress

CASES = 8
_SHAPE = (16, 24, 16)
"""(X, Y, Z), as NIfTI has it."""
_TINY = {
    "patch = [32, 48, 32]": "patch = [16, 24, 16]",
    "widths = [32, 64, 96]": "widths = [16, 16]",
    "strides = [[2, 2, 2], [2, 2, 2]]": "strides = [[2, 2, 2]]",
    "mirror_share = 0.5": "mirror_share = 0.0",
    'mirrors = ["x"]': "mirrors = []",
    "folds = 5": "folds = 2",
    "samples_per_epoch = 172": "samples_per_epoch = 32",
    "batch_size = 4": "batch_size = 2",
    "average_decay = 0.99": "average_decay = 0.5",
    "least_volume_ml = 0.3": "least_volume_ml = 0.01",
    "planes = [16, 128]": "planes = [8, 128]",
    "least_extent_mm = [20.0, 32.0, 24.0]": "least_extent_mm = [8.0, 8.0, 8.0]",
}


def make_volumes(folder: Path) -> Path:
    """Make images with two bright bodies, one before the other, as NIfTI in RAS; and one image without a mask."""
    (folder / "images").mkdir()
    (folder / "labels").mkdir()
    x, y, z = np.meshgrid(*(np.arange(count) for count in _SHAPE), indexing="ij")
    for number in range(CASES + 1):
        generator = np.random.default_rng(number)
        labels = np.zeros(_SHAPE, dtype=np.uint8)
        shift = generator.uniform(-1.5, 1.5, 3)
        for label, middle in ((1, 16), (2, 8)):  # the front lies at high y
            place = (x - 8 - shift[0]) ** 2 + (y - middle - shift[1]) ** 2 + (z - 8 - shift[2]) ** 2
            labels[place < 16] = label
        image = 100 + 60 * labels + generator.normal(0, 8, _SHAPE)
        name = f"case_{number:03}.nii.gz"
        nib.save(nib.Nifti1Image(image.astype(np.float32), np.eye(4)), folder / "images" / name)
        if number < CASES:
            nib.save(nib.Nifti1Image(labels, np.eye(4)), folder / "labels" / name)
    return folder


def describe_tiny_volumes(folder: Path) -> Path:
    """Write a shipped bundle's description into `folder`, with a network small enough for seconds; no weights."""
    text = (default_bundle_dir() / "mr-hippocampus" / "bundle.toml").read_text(encoding="utf-8")
    for shipped, tiny in _TINY.items():
        assert shipped in text, shipped
        text = text.replace(shipped, tiny)
    (folder / "bundle.toml").write_text(text, encoding="utf-8")
    return folder


def train_tiny_volumes(bundle: Path, data: Path, out: Path, report: Callable[[Progress], None]) -> Path:
    """Train for three epochs each fold and the final network."""
    from inference.training.run import train  # noqa: PLC0415 -- importing it takes seconds; few tests need it

    return train(bundle, data, out, device="cpu", epochs=3, seed=3, report=report)
