"""The `[training]` table of a bundle for volumes."""

from __future__ import annotations

from dataclasses import dataclass, replace

from inference.bundle import BUNDLE_FILE, Bundle
from inference.table import Table
from inference.training.config import filled

LABEL_SOURCES = ("masks", "lung-reference")


@dataclass(frozen=True, slots=True)
class VolumeLoopConfig:
    """The `[training.loop]` table."""

    epochs: int = 30
    samples_per_epoch: int = 176
    """Patches; cases take turns in random order."""
    batch_size: int = 2
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    warm_up_share: float = 0.05
    """Share of the steps in which the rate climbs; after it, half a cosine down to nothing."""
    average_decay: float = 0.99
    """Of the exponential moving average of the weights, per step."""
    gradient_norm: float = 5.0
    patch: tuple[int, ...] = ()
    """(z, y, x) voxels of a training patch; the input's own without it."""
    half_precision: bool = True
    """Whether convolutions run in bfloat16, on a CPU too where they are not hybrid; weights and losses stay float32."""


@dataclass(frozen=True, slots=True)
class VolumeAugmentationConfig:
    """The `[training.augmentation]` table; shares are probabilities per patch."""

    mirror_share: float = 0.0
    """Left for right. Only where both sides look alike and are called alike."""
    turn_degrees: float = 15.0
    scale: float = 0.15
    shear: float = 0.05
    shift_voxels: float = 3.0
    elastic: float = 40.0
    """Greatest magnitude of MONAI's Rand3DElastic."""
    spatial_share: float = 0.8
    blur_share: float = 0.2
    blur_sigma: float = 1.0
    noise_share: float = 0.3
    noise: float = 0.1
    """Standard deviation; in units of the network's input, as all below."""
    contrast_share: float = 0.3
    contrast: float = 0.2
    """Factor within 1 ± this; the shift is within ± half of it."""
    gamma: float = 0.3
    """Exponent within 1 ± this."""
    bias_share: float = 0.0
    """Smooth fields of brightness, as coils leave them in MR."""
    thick_share: float = 0.0
    """Share of patches that are blurred across planes, as thicker slices would be."""


@dataclass(frozen=True, slots=True)
class VolumeTrainingConfig:
    """How a bundle for volumes is trained."""

    labels: str
    """Where labels come from: `LABEL_SOURCES`."""
    folds: int
    """Of the cross-validation; 0 leaves out one group (manufacturer) at a time."""
    split_seed: int
    loop: VolumeLoopConfig
    augmentation: VolumeAugmentationConfig


def read_volume_config(bundle: Bundle, epochs: int | None = None) -> VolumeTrainingConfig:
    """Read and check the table.

    Parameters
    ----------
    epochs
        Instead of the table's.

    Raises
    ------
    BundleError
        A field is missing, unknown or of another type.
    """
    table = Table(bundle.training, bundle.path / BUNDLE_FILE, "training.")
    labels = table.get("labels", str)
    if labels not in LABEL_SOURCES:
        raise table.wrong("labels", f"{labels!r} is none of {', '.join(LABEL_SOURCES)}")
    folds = table.get("folds", int)
    if folds < 0 or folds == 1:
        raise table.wrong("folds", "must be at least 2, or 0 for one group at a time")
    loop = filled(VolumeLoopConfig, table.table("loop", is_optional=True))
    if epochs is not None:
        loop = replace(loop, epochs=epochs)
    if len(loop.patch) not in (0, 3):
        raise table.wrong("loop.patch", "must hold 3 whole numbers")
    return VolumeTrainingConfig(
        labels=labels,
        folds=folds,
        split_seed=table.get("split_seed", int),
        loop=loop,
        augmentation=filled(VolumeAugmentationConfig, table.table("augmentation", is_optional=True)),
    )
