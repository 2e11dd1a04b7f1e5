"""The `[training]` table of a bundle."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, TypeVar

from inference.bundle import BUNDLE_FILE, Bundle
from inference.table import Table
from inference.training.augmentation import AugmentationConfig
from inference.training.data import Part, part_in_fold, part_of
from inference.training.loop import LoopConfig
from inference.training.losses import LossConfig

Config = TypeVar("Config")
_FOLDS = 5


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """How a bundle is trained."""

    split_seed: int
    shares: tuple[float, float]
    """Shares of the groups for validation and for calibration."""
    held_out_groups: tuple[str, ...]
    """Groups that are for validation in any case."""
    least_mask_confidence: float
    loop: LoopConfig
    augmentation: AugmentationConfig
    loss: LossConfig
    teacher: str
    """Folder of the bundle whose answers are learnt, too, as seen from this bundle's; empty: none."""
    folds: int
    """Rounds of the cross-validation."""
    fold: int
    """Which of them this bundle is of, from 1; 0: of none, the shares say what is for validation."""

    @property
    def split(self) -> tuple[object, ...]:
        """All that says which group serves for what."""
        return self.split_seed, self.shares, self.held_out_groups, self.fold and self.folds, self.fold

    def part_of(self, group: str) -> Part:
        """Return what a group serves for."""
        if self.fold:
            return part_in_fold(group, self.split_seed, self.folds, self.fold, self.shares[1])
        return part_of(group, self.split_seed, self.shares, self.held_out_groups)


def read_config(bundle: Bundle) -> TrainingConfig:
    """Read and check the table.

    Raises
    ------
    BundleError
        A field is missing, unknown or of another type.
    """
    table = Table(bundle.training, bundle.path / BUNDLE_FILE, "training.")
    shares = table.get("validation_share", float), table.get("calibration_share", float)
    if min(shares) <= 0 or sum(shares) >= 1:
        raise table.wrong("validation_share", "shares must be positive and leave some groups for training")
    loss, teacher = filled(LossConfig, table.table("loss", is_optional=True)), table.get("teacher", str, "")
    try:
        loss.check()
    except ValueError as error:
        raise table.wrong(f"loss.{str(error).partition(':')[0]}", str(error).partition(": ")[2]) from error
    if loss.distillation and not teacher:
        raise table.wrong("teacher", "must name a bundle's folder where loss.distillation is not 0")
    folds, fold = table.get("folds", int, _FOLDS), table.get("fold", int, 0)
    if folds < 2:  # noqa: PLR2004 -- one part to learn from, one to judge by
        raise table.wrong("folds", "must be at least 2")
    if not 0 <= fold <= folds:
        raise table.wrong("fold", f"must lie within 0 and {folds}")
    loop = filled(LoopConfig, table.table("loop", is_optional=True))
    if not 0 <= loop.balance <= 1:
        raise table.wrong("loop.balance", "must lie within 0 and 1")
    return TrainingConfig(
        split_seed=table.get("split_seed", int),
        shares=shares,
        held_out_groups=table.items("held_out_groups", str, ()),
        least_mask_confidence=table.get("least_mask_confidence", float),
        loop=loop,
        augmentation=filled(AugmentationConfig, table.table("augmentation", is_optional=True)),
        loss=loss,
        teacher=teacher,
        folds=folds,
        fold=fold,
    )


def filled(config: type[Config], table: Table) -> Config:
    """Return `config` with the fields of the table, defaults elsewhere."""
    defaults = config()
    known = {field.name for field in fields(config)}  # type: ignore[arg-type]  # a dataclass with defaults
    for key in table.values:
        if key not in known:
            raise table.wrong(key, "unknown field")
    given: dict[str, Any] = {}
    for key in table.values:
        default = getattr(defaults, key)
        given[key] = table.items(key, int) if isinstance(default, tuple) else table.get(key, type(default))
    return config(**given)
