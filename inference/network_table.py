"""The `[network]` table of this project's networks beside the rest of bundle.toml. Reading needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from inference.errors import BundleError
from inference.foreign.spec import KINDS as FOREIGN_KINDS
from inference.input_spec import ProjectionInput, VolumeInput
from inference.networks.config import HybridMedNetConfig
from inference.networks.config3d import HybridMedNet3dConfig
from inference.table import Table

IMAGES, VOLUMES = "hybridmednet", "hybridmednet3d"
"""Values of `[network] kind`."""
_LEVELS = 2
"""Coarse and fine."""
_IMAGES_GIVEN = 1
"""What `[input]` makes of a projection image; nothing registers a second one."""


def check_network_table(entry: Table, spec: ProjectionInput | VolumeInput, levels: int) -> None:
    """Raise BundleError where the table does not describe a network for such an input and so many levels."""
    if isinstance(spec, VolumeInput):
        read_volume_network(entry, spec.patch)
    else:
        read_image_network(entry, levels)


def read_image_network(entry: Table, levels: int) -> HybridMedNetConfig:
    """Read the table of a bundle for projection images.

    Raises
    ------
    BundleError
        A field does not fit, or its network not the rest of the bundle; names file, field, value and what is expected.
    """
    _check_kind(entry, IMAGES, "images")
    if levels != _LEVELS:
        raise _wrong(entry.file, f"levels: {IMAGES} answers {_LEVELS}, there are {levels}")
    try:
        config = HybridMedNetConfig.from_table(entry.values)
    except ValueError as error:
        raise _wrong(entry.file, str(error)) from error
    if config.inputs != _IMAGES_GIVEN:
        raise entry.wrong("inputs", f"must be {_IMAGES_GIVEN}, is {config.inputs}: [input] gives one image")
    return config


def read_volume_network(entry: Table, patch: Sequence[int]) -> HybridMedNet3dConfig:
    """Read the table of a bundle for volumes of which the network sees `patch` (z, y, x) at once; raises as above."""
    _check_kind(entry, VOLUMES, "volumes")
    try:
        config = HybridMedNet3dConfig.from_table(entry.values)
    except ValueError as error:
        raise _wrong(entry.file, str(error)) from error
    if any(side % divisor for side, divisor in zip(patch, config.divisor, strict=True)):
        strides = f"must be multiples of {list(config.divisor)}, the network's strides"
        raise _wrong(entry.file, f"input.patch: {strides}, is {list(patch)}")
    return config


def _check_kind(entry: Table, own: str, shown: str) -> None:
    kind = entry.get("kind", str)
    if kind != own:
        known = ", ".join((own, *FOREIGN_KINDS))
        raise entry.wrong("kind", f"{kind!r} is none of {known}, which take the {shown} of [input]")


def _wrong(file: Path, sentence: str) -> BundleError:
    return BundleError(f"{file}: {sentence}")
