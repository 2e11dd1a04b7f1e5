"""A tiny made-up data set of chest X-rays, and a bundle small enough to be trained on it in seconds."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from inference.bundle import BUNDLE_FILE, default_bundle_dir, load_bundle
from inference.training.figures import drop_table, write_digest
from inference.training.progress import Progress

_SIDE = 64
_GROUPS = 48
_TINY = {
    "size = 144": "size = 64",
    "detail = 224": "detail = 64",
    'backbone = "resnet18"': 'backbone = "resnet10"',
    "width = 24": "width = 8",
    "channels = 48": "channels = 8",
    "decoder_width = 32": "decoder_width = 8",
    "scales = [1.0, 0.75, 0.5]": "scales = [1.0, 0.5]",
    "batch_size = 24": "batch_size = 8",
    "average_decay = 0.996": "average_decay = 0.5",
    "validation_share = 0.15": "validation_share = 0.25",
    "calibration_share = 0.08": "calibration_share = 0.25",
    "learning_rate = 0.001": "learning_rate = 0.003",
    'precision = "bfloat16"': 'precision = "float32"',
    "small_epochs = 0": "small_epochs = 7",
}


def _chest(seed: int, fine: str) -> tuple[Image.Image, Image.Image]:
    """Draw two dark lungs on a bright body, with bright spots (bacterial) or haze (viral), and the lungs' mask."""
    generator = np.random.default_rng(seed)
    image, mask = Image.new("L", (_SIDE, _SIDE), 170), Image.new("L", (_SIDE, _SIDE), 0)
    for left in (8, 36):
        box = (left, 12 + int(generator.integers(0, 4)), left + 20, 54)
        ImageDraw.Draw(image).ellipse(box, fill=110 if fine == "viral" else 60)
        ImageDraw.Draw(mask).ellipse(box, fill=255)
    if fine == "bacterial":
        ImageDraw.Draw(image).ellipse((10, 30, 26, 46), fill=200)
    noisy = np.asarray(image, dtype=np.float32) + generator.normal(0, 5, (_SIDE, _SIDE))
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)), mask


@pytest.fixture(scope="session")
def chests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a data set in the layout of labels.csv, two images in some groups."""
    folder = tmp_path_factory.mktemp("chests")
    (folder / "images").mkdir()
    (folder / "masks").mkdir()
    rows = []
    for number in range(_GROUPS):
        fine = ("normal", "bacterial", "viral")[number % 3]
        image, mask = _chest(number, fine)
        image.save(folder / "images" / f"{number}.png")
        mask.convert("1").save(folder / "masks" / f"{number}.png")
        coarse = "normal" if fine == "normal" else "pneumonia"
        rows.append([f"{number}.png", f"child{number}", coarse, fine, 640 + number, 600, f"{number}.png", 0.95])
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        header = ["image", "group", "coarse", "fine", "orig_width", "orig_height", "mask", "mask_confidence"]
        csv.writer(file).writerows([header, *rows])
    return folder


def describe_tiny(folder: Path) -> Path:
    """Write the shipped bundle's description into `folder`, with a network small enough for seconds; no weights."""
    text = (default_bundle_dir() / "cxr-pneumonia" / "bundle.toml").read_text(encoding="utf-8")
    for shipped, tiny in _TINY.items():
        assert shipped in text, shipped
        text = text.replace(shipped, tiny)
    file = folder / "bundle.toml"
    file.write_text(text, encoding="utf-8")
    for name in ("novelty", "laplace"):  # of the shipped network's features
        drop_table(file, name)
    return folder


def make_tiny(folder: Path, name: str) -> Path:
    """Write a tiny bundle with weights that learnt nothing, and the self-test that they pass."""
    # conftest imports this module; most tests need no torch
    from inference.networks.weights import build_network, save_weights  # noqa: PLC0415
    from inference.training.run import write_self_test  # noqa: PLC0415

    folder.mkdir(parents=True)
    file = describe_tiny(folder) / BUNDLE_FILE
    file.write_text(file.read_text(encoding="utf-8").replace('name = "cxr-pneumonia"', f'name = "{name}"', 1))
    drop_table(file, "self_test")
    bundle = load_bundle(folder, verify_weights=False)
    save_weights(build_network(bundle), bundle.weights_path)
    write_digest(file, hashlib.sha256(bundle.weights_path.read_bytes()).hexdigest())
    write_self_test(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a tiny bundle without weights."""
    return describe_tiny(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="session")
def trained(tiny_bundle: Path, chests: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Progress]]:
    """Give the bundle after three uninterrupted epochs, and what the run reported."""
    seen: list[Progress] = []
    out = tmp_path_factory.mktemp("trained")
    return train_tiny(tiny_bundle, chests, out, seen.append), seen


def train_tiny(bundle: Path, data: Path, out: Path, report: Callable[[Progress], None]) -> Path:
    """Train for three epochs."""
    from inference.training.run import train  # noqa: PLC0415 -- conftest imports this module; most tests need no torch

    return train(bundle, data, out, device="cpu", epochs=3, seed=3, report=report)
