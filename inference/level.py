"""The label hierarchy of a bundle: its levels, outermost first, and the classes of each."""

from __future__ import annotations

from dataclasses import dataclass

from inference.findings import Code
from inference.table import Table


@dataclass(frozen=True, slots=True)
class LabelClass:
    """One class of a level."""

    name: str
    code: Code
    parent: str | None


@dataclass(frozen=True, slots=True)
class Level:
    """One level of the label hierarchy."""

    name: str
    question: Code
    classes: tuple[LabelClass, ...]
    site: Code | None
    positive: str | None
    threshold: float
    has_heat_map: bool

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes in the network's order."""
        return tuple(label.name for label in self.classes)


def read_levels(top: Table) -> tuple[Level, ...]:
    """Read and check the array `levels`; BundleError names file and field."""
    levels: list[Level] = []
    for entry in top.tables("levels"):
        level = _level(entry)
        parents = {label.parent for label in level.classes}
        if levels and not parents <= set(levels[-1].class_names):
            raise entry.wrong("classes", f"parents must be classes of the level {levels[-1].name!r}")
        if not levels and parents != {None}:
            raise entry.wrong("classes", "the first level has no parents")
        levels.append(level)
    return tuple(levels)


def _level(entry: Table) -> Level:
    classes = tuple(
        LabelClass(label.get("name", str), label.needed_code("code"), label.get("parent", str, "") or None)
        for label in entry.tables("classes")
    )
    if len({label.name for label in classes}) != len(classes) or not classes:
        raise entry.wrong("classes", "must be at least one, with different names")
    positive = entry.get("positive", str, "") or None
    if positive is not None and positive not in {label.name for label in classes}:
        raise entry.wrong("positive", f"{positive!r} is no class of the level")
    threshold = entry.get("threshold", float, 0.5)
    if not 0 < threshold < 1:
        raise entry.wrong("threshold", "must lie between 0 and 1")
    return Level(
        name=entry.get("name", str),
        question=entry.needed_code("question"),
        classes=classes,
        site=entry.code("site", is_optional=True),
        positive=positive,
        threshold=threshold,
        has_heat_map=entry.get("heat_map", bool, False),
    )
