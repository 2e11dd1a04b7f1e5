"""The `[network]` table of a bundle whose network is foreign, and whom the operator allows. Reading needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from inference.pinned import pinned_file
from inference.table import Table

TORCHSCRIPT, ONNX, MONAI = KINDS = ("torchscript", "onnx", "monai")
SEGMENTS = "segments"
ACTIVATIONS = ("logits", "probabilities")
OWN_ORIENTATION = "SPL"
"""Where this project's (z, y, x) lead: to the superior, the posterior and the left."""

_OPPOSITE = dict(zip("SPLIAR", "IARSPL", strict=True))
_FIELDS = {"kind", "outputs", "activation", "mean", "std", "orientation", "definition", "definition_sha256"}


@dataclass(frozen=True, slots=True)
class Allowance:
    """Which foreign bundles may run: `name`, or `name=digest` for these very weights."""

    entries: tuple[str, ...] = ()

    def covers(self, name: str, digest: str) -> bool:
        """Say whether the bundle with this weights' digest may run."""
        return name in self.entries or f"{name}={digest}" in self.entries


NOBODY = Allowance()


@dataclass(frozen=True, slots=True)
class Meant:
    """What the rest of bundle.toml asks of the network."""

    levels: tuple[str, ...]
    has_segments: bool
    is_volume: bool


@dataclass(frozen=True, slots=True)
class ForeignSpec:
    """How a foreign network is shown its input, and what it gives."""

    kind: str
    outputs: tuple[str, ...]
    is_activated: bool
    """Whether it gives probabilities."""
    mean: tuple[float, ...]
    """Of each input channel."""
    std: tuple[float, ...]
    orientation: str | None
    """Where its spatial axes lead; None for images."""
    definition: Path | None
    definition_digest: str


def read_foreign(entry: Table, folder: Path, meant: Meant) -> ForeignSpec | None:
    """Read the table; None where the network is one of this project's.

    Raises
    ------
    BundleError
        A field is missing, unknown or does not fit the rest of the bundle; names file and field.
    """
    kind = entry.get("kind", str)
    if kind not in KINDS:
        return None
    for key in entry.values:
        if key not in _FIELDS:
            raise entry.wrong(key, "unknown field")
    mean, std = entry.items("mean", float, (0.0,)), entry.items("std", float, (1.0,))
    if not mean or len(mean) != len(std) or min(std) <= 0:
        raise entry.wrong("std", "must hold a positive number for each of mean")
    activation = entry.get("activation", str, ACTIVATIONS[0])
    if activation not in ACTIVATIONS:
        raise entry.wrong("activation", f"{activation!r} is none of {', '.join(ACTIVATIONS)}")
    definition = pinned_file(entry, folder, "definition", "definition_sha256") if kind == MONAI else (None, "")
    return ForeignSpec(
        kind=kind,
        outputs=_outputs(entry, meant),
        is_activated=activation == ACTIVATIONS[1],
        mean=mean,
        std=std,
        orientation=_orientation(entry) if meant.is_volume else None,
        definition=definition[0],
        definition_digest=definition[1],
    )


def _outputs(entry: Table, meant: Meant) -> tuple[str, ...]:
    outputs = entry.items("outputs", str)
    wanted = {*meant.levels, *([SEGMENTS] if meant.has_segments else [])}
    if len(meant.levels) > 2:  # noqa: PLR2004 -- coarse and fine
        raise entry.wrong("outputs", "a foreign network answers at most two levels")
    if meant.is_volume and outputs != (SEGMENTS,):
        raise entry.wrong("outputs", f"must be [{SEGMENTS!r}] for volumes")
    if set(outputs) != wanted or len(outputs) != len(wanted):
        raise entry.wrong("outputs", f"must name each of {', '.join(sorted(wanted)) or 'at least one level'} once")
    return outputs


def _orientation(entry: Table) -> str:
    axes = entry.get("orientation", str)
    if len(axes) != len(OWN_ORIENTATION) or {_own_letter(axis) for axis in axes} != set(OWN_ORIENTATION):
        raise entry.wrong("orientation", 'must name three axes of the patient, such as "RAS" or "SPL"')
    return axes


def _own_letter(axis: str) -> str:
    return axis if axis in OWN_ORIENTATION else _OPPOSITE.get(axis, "")


def turning(orientation: str) -> tuple[Sequence[int], Sequence[int]]:
    """Return how (z, y, x) become a network's axes.

    Returns
    -------
    For each axis of the network the own one, and the own axes that lead the other way.
    """
    order = [OWN_ORIENTATION.index(_own_letter(axis)) for axis in orientation]
    flipped = [own for own, axis in zip(order, orientation, strict=True) if axis not in OWN_ORIENTATION]
    return order, flipped
