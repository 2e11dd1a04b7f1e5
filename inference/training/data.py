"""Labelled images: `labels.csv` and the files it names, split by patient group.

`labels.csv` has the columns image, group, coarse, fine, orig_width, orig_height, mask, mask_confidence; `images/` and
`masks/` lie beside it. Images are stored squashed to a square: the original sides give back the physical aspect.
Where they are blank the mean over all images is taken, without looking at the class, since the aspect alone tells
much about it.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from inference.bundle import Bundle
from inference.training.targets import sided
from inference.transforms import normalised


class Part(Enum):
    """What a group is for; no group serves twice."""

    TRAINING = "training"
    CALIBRATION = "calibration"
    VALIDATION = "validation"


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """One row of `labels.csv`."""

    image: str
    group: str
    coarse: str
    fine: str
    aspect: float | None
    """Original width over height; None where not known."""
    mask: str | None
    """File name of a mask that can be trusted, or None."""


def read_labels(data_dir: Path, least_mask_confidence: float) -> tuple[LabelledImage, ...]:
    """Read `labels.csv`; a mask under `least_mask_confidence` is left out, its image is kept."""
    with (data_dir / "labels.csv").open(newline="", encoding="utf-8") as lines:
        return tuple(_labelled(row, least_mask_confidence) for row in csv.DictReader(lines))


def _labelled(row: dict[str, str], least_mask_confidence: float) -> LabelledImage:
    is_known = bool(row["orig_width"] and row["orig_height"])
    is_trusted = bool(row["mask"]) and float(row["mask_confidence"] or 0) >= least_mask_confidence
    return LabelledImage(
        image=row["image"],
        group=row["group"],
        coarse=row["coarse"],
        fine=row["fine"],
        aspect=int(row["orig_width"]) / int(row["orig_height"]) if is_known else None,
        mask=row["mask"] if is_trusted else None,
    )


def part_of(group: str, split_seed: int, shares: tuple[float, float], held_out: Sequence[str] = ()) -> Part:
    """Return the part a group belongs to: a hash decides, so it never depends on the other groups or their order.

    Parameters
    ----------
    shares
        Share of groups for validation and for calibration.
    held_out
        Groups that are for validation in any case.
    """
    if group in held_out:
        return Part.VALIDATION
    place = _place(group, split_seed)
    if place < shares[0]:
        return Part.VALIDATION
    return Part.CALIBRATION if place < shares[0] + shares[1] else Part.TRAINING


def part_in_fold(group: str, split_seed: int, folds: int, fold: int, calibration_share: float) -> Part:
    """Return the part of a group in one round of a cross-validation, in which each is for validation exactly once.

    Parameters
    ----------
    folds, fold
        Rounds, and which of them it is, from 1.
    calibration_share
        Of the groups that are not for validation, as many of each other fold.
    """
    number, rest = divmod(_place(group, split_seed) * folds, 1)
    if int(number) + 1 == fold:
        return Part.VALIDATION
    return Part.CALIBRATION if rest < calibration_share else Part.TRAINING


def _place(group: str, split_seed: int) -> float:
    """Return a number within 0 and 1 that depends on the group's name and the seed alone."""
    digest = hashlib.sha256(f"{split_seed}:{group}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


@dataclass(frozen=True, slots=True, eq=False)
class Images:
    """Decoded images of one part, ready for views."""

    names: tuple[str, ...]
    groups: tuple[str, ...]
    grey: NDArray[np.uint8]
    """(N, detail, detail): 0..255 between the bundle's percentiles."""
    lungs: NDArray[np.uint8]
    """(N, detail, detail) classes of `targets`; all background where `has_mask` is False."""
    has_mask: NDArray[np.bool_]
    aspects: NDArray[np.float64]
    """(N,) physical width over height."""
    has_aspect: NDArray[np.bool_]
    """False where the aspect is the mean."""
    coarse: NDArray[np.int64]
    """(N,) index of the class."""
    fine: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.names)

    def chosen(self, at: NDArray[np.int64]) -> Images:
        """Return the images at these places."""
        return Images(
            names=tuple(self.names[index] for index in at),
            groups=tuple(self.groups[index] for index in at),
            grey=self.grey[at],
            lungs=self.lungs[at],
            has_mask=self.has_mask[at],
            aspects=self.aspects[at],
            has_aspect=self.has_aspect[at],
            coarse=self.coarse[at],
            fine=self.fine[at],
        )


def load_images(
    data_dir: Path,
    labels: Sequence[LabelledImage],
    bundle: Bundle,
    *,
    mean_aspect: float,
    report: Callable[[int, int], None],
) -> Images:
    """Decode images and masks.

    Parameters
    ----------
    bundle
        Says the order of the classes and the grid.
    mean_aspect
        Aspect of images whose original sides are not known.
    report
        Called with the number done and the total.
    """
    detail = bundle.projection.detail
    coarse, fine = (level.class_names for level in bundle.levels)
    shape = (len(labels), detail, detail)
    grey, lungs = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    for index, label in enumerate(labels):
        with Image.open(data_dir / "images" / label.image) as image:
            plane = np.asarray(image.convert("L"), dtype=np.float32)
        grey[index] = np.round(255 * normalised(plane, detail, bundle.projection.percentiles))
        if label.mask is not None:
            lungs[index] = sided(_mask(data_dir / "masks" / label.mask, detail))
        report(index + 1, len(labels))
    return Images(
        names=tuple(label.image for label in labels),
        groups=tuple(label.group for label in labels),
        grey=grey,
        lungs=lungs,
        has_mask=np.array([label.mask is not None for label in labels], dtype=np.bool_),
        aspects=np.array([label.aspect or mean_aspect for label in labels], dtype=np.float64),
        has_aspect=np.array([label.aspect is not None for label in labels], dtype=np.bool_),
        coarse=np.array([coarse.index(label.coarse) for label in labels], dtype=np.int64),
        fine=np.array([fine.index(label.fine) for label in labels], dtype=np.int64),
    )


def _mask(path: Path, detail: int) -> NDArray[np.bool_]:
    with Image.open(path) as image:
        return np.asarray(image.convert("L").resize((detail, detail), Image.Resampling.NEAREST)) > 0


def mean_aspect(labels: Sequence[LabelledImage]) -> float:
    """Return the mean known aspect over all classes, 1 where none is known."""
    known = [label.aspect for label in labels if label.aspect is not None]
    return float(np.mean(known)) if known else 1.0


def batches(order: NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
    """Yield an epoch's indices in batches, the last incomplete one left out unless it is the only one."""
    for start in range(0, max(len(order) - size, 0) + 1, size):
        yield order[start : start + size]
