"""Model cards: what commands write into them, each in a section between two marks; what people wrote around them stays.

Only a compressed bundle that has no card yet gets more than sections: a heading, what it was made of, and its data.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from inference.bundle import Bundle
from inference.training.variants import Comparison, Variant

CARD = "README.md"
_SHARES = ("accuracy", "sensitivity", "specificity", "coverage")
"""Figures whose names hold one of these are told as shares of a hundred."""
_WITHOUT_TOP = ("cross_entropy", "brier", "mean_size")
"""Figures that may be greater than 1. None is below 0."""
_HEAD = {
    "coarse_auc": "coarse AUC",
    "coarse_accuracy": "coarse accuracy",
    "fine_auc": "fine AUC",
    "accuracy_all_classes": "accuracy, all classes",
    "calibration_error": "calibration error",
}
_DIGITS = 12
_KB = 1000


def write_section(folder: Path, name: str, text: str) -> None:
    """Put `text` between the marks of `name` in the bundle's card, at its end where it has no such marks yet."""
    file = folder / CARD
    begin, end = _marks(name)
    card = file.read_text(encoding="utf-8") if file.exists() else ""
    block = f"{begin}\n{text.strip()}\n{end}"
    between = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    changed = between.sub(lambda _: block, card) if between.search(card) else f"{card.rstrip()}\n\n{block}\n"
    _replace(file, changed.lstrip("\n"))


def drop_sections(folder: Path) -> None:
    """Take every section out of the bundle's card: what commands found is of weights that are no longer there."""
    file = folder / CARD
    if not file.exists():
        return
    begin, end = _marks(r"(?P<name>\S+)")[0], _marks("(?P=name)")[1]
    kept = re.sub(rf"\n*{begin}.*?{end}", "", file.read_text(encoding="utf-8"), flags=re.DOTALL)
    _replace(file, kept)


def _marks(name: str) -> tuple[str, str]:
    return f"<!-- {name}: written by a command -->", f"<!-- end of {name} -->"


def begin_card(folder: Path, bundle: Bundle, comparison: Comparison) -> None:
    """Write what the card of a compressed bundle begins with, where the bundle has no card yet."""
    file = folder / CARD
    if file.exists():
        return
    original, made = comparison.original, comparison.made
    _replace(
        file,
        f"""# {made.name}: model card

{bundle.intended_use}

Made by `hybridmed compress` of `{original.name}` {original.version} (weights {original.weights_sha256[:_DIGITS]}):
{made.method}. Input, classes, segments, guards and heat map are the original's, and so is what it must not be used for:
the original's card says it. Calibrated anew, on the same groups.

## Data
- {bundle.data.sources}
- {bundle.data.population}
- Licence: {bundle.data.licence}
""",
    )


def compression_page(comparison: Comparison) -> str:
    """Return a compressed bundle's figures beside those of the one it was made of, as a section."""
    original, made = comparison.original, comparison.made
    before, after = _column(original), _column(made)
    figures = "\n".join(f"| {name} | {before[name]} | {value} |" for name, value in after.items())
    threads = f"{made.speed.threads} thread{'s' if made.speed.threads > 1 else ''}"
    return f"""## Beside the original
On the {made.figures.images:,} images of the {made.figures.groups:,} validation groups, from which neither learnt.

| | {original.name} | {made.name} |
|---|---|---|
{figures}

Measured on {made.speed.device}, {threads}. Times are those of both looks with heads and outlines, without reading the
study and writing results; memory is what the process takes beyond its libraries. {_speed_lost(comparison)}"""


def folds_page(figures: Mapping[str, object]) -> str:
    """Return the cross-validation as a section; `figures` as of `folds.summarised`."""
    rows = [f"| {name} | {told} |" for name, told in _leaves(figures, "")]
    return "\n".join(
        [
            "## Cross-validation",
            f"{figures['folds']} networks of the same recipe, each judged on the groups of its fold alone: "
            f"{figures['images']} images of {figures['groups']} groups in all. Mean over the folds and its 95 % "
            "interval (Student's t). Printed by `hybridmed evaluate --folds`.",
            "",
            "| figure | mean (95 % interval) |",
            "|---|---|",
            *rows,
        ]
    )


def ablation_page(table: Mapping[str, object]) -> str:
    """Return the ablation as a section; `table` as of `ablation.ablate`."""
    variants = table["variants"]
    assert isinstance(variants, Mapping)  # noqa: S101 -- made by `ablate`
    rows = [
        f"| {'' if number == 0 else '+ '}{name} | "
        + " | ".join(_told(figure, figures[figure]) for figure in _HEAD)
        + " |"
        for number, (name, figures) in enumerate(variants.items())
    ]
    return "\n".join(
        [
            "## What each part is worth",
            f"Small networks for comparison among each other alone: {table['folds']} folds, {table['epochs']} epochs, "
            f"{table['size']} x {table['size']} pixels. Mean over the folds and its 95 % interval (Student's t). "
            "Printed by `hybridmed evaluate --ablation`.",
            "",
            "| variant | " + " | ".join(_HEAD.values()) + " |",
            "|---|" + "---|" * len(_HEAD),
            *rows,
        ]
    )


def _column(one: Variant) -> dict[str, str]:
    """Return a column of the comparison, by the names of its rows."""
    speed, figures = one.speed, one.figures
    return {
        "weights file": f"{one.bytes / _KB:,.0f} kB",
        "parameters": f"{one.parameters:,}",
        "one image, median": f"{speed.p50_ms:.1f} ms",
        "one image, 95th percentile": f"{speed.p95_ms:.1f} ms",
        f"images a second, in batches of {speed.batch}": f"{speed.images_per_s:.1f}",
        "memory, peak": f"{speed.peak_mib:,.0f} MiB",
        "accuracy, coarse level": f"{figures.coarse_accuracy:.1%}",
        "accuracy, fine level, among the positive": f"{figures.fine_accuracy:.1%}",
        **{f"Dice, {name}": f"{value:.3f}" for name, value in figures.dice.items()},
        "let through by the guards": f"{figures.answered:.1%}",
    }


def _speed_lost(comparison: Comparison) -> str:
    """Return a sentence where it is no faster: no reason to refuse it, but to know it."""
    before, after = comparison.original.speed, comparison.made.speed
    if after.p50_ms < before.p50_ms and after.images_per_s > before.images_per_s:
        return ""
    return "It is smaller, not faster."


def _leaves(figures: Mapping[str, object], prefix: str) -> Iterator[tuple[str, str]]:
    for name, value in figures.items():
        if not isinstance(value, Mapping):
            continue
        path = f"{prefix}{name.replace('_', ' ')}"
        if "mean" in value and not isinstance(value["mean"], Mapping):
            yield path, _told(name, value)
        else:
            yield from _leaves(value, f"{path}: ")


def _told(name: str, figure: Mapping[str, float]) -> str:
    """Return mean and interval, cut where the figure itself ends: Student's t knows of no ends."""
    mean, low, high = figure["mean"], max(figure["low"], 0.0), figure["high"]
    high = min(high, math.inf if name in _WITHOUT_TOP else 1.0)
    if any(part in name for part in _SHARES):
        return f"{mean:.1%} ({low:.1%} to {high:.1%})".replace("%", " %")
    return f"{mean:.3f} ({low:.3f} to {high:.3f})"


def _replace(file: Path, text: str) -> None:
    partial = file.with_suffix(".md.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(file)
