"""The samples as an SVG: memory, threads and successes per second over time."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from xml.sax.saxutils import escape

from tests.benchmarks.load.sampling import Sample

_WIDTH, _HEIGHT, _LEFT, _GAP = 760, 130, 70, 40
_POINTS = 700


def svg(samples: Sequence[Sample], title: str) -> str:
    """Return three panels, each from zero to its own maximum."""
    per_s = [0.0]
    for before, after in pairwise(samples):
        per_s.append((after.successes - before.successes) / max(after.at_s - before.at_s, 0.1))
    panels = (
        ("resident memory, MiB", [sample.rss_mib for sample in samples], "#1f6f8b"),
        ("threads", [float(sample.threads) for sample in samples], "#b3541e"),
        ("instances per second", per_s, "#3d7a3d"),
    )
    times = [sample.at_s for sample in samples]
    height = _GAP + len(panels) * (_HEIGHT + _GAP)
    drawn = [_panel(_GAP + at * (_HEIGHT + _GAP), times, *panel) for at, panel in enumerate(panels)]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH + _LEFT + 20}" height="{height}" '
        f'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>'
        f'<text x="{_LEFT}" y="18">{escape(title)}</text>{"".join(drawn)}</svg>\n'
    )


def _panel(top: int, times: Sequence[float], name: str, values: Sequence[float], colour: str) -> str:
    highest, last = max(*values, 1.0) * 1.1, max(*times, 1.0)
    step = max(1, len(values) // _POINTS)
    points = " ".join(
        f"{_LEFT + _WIDTH * at / last:.1f},{top + _HEIGHT * (1 - value / highest):.1f}"
        for at, value in list(zip(times, values, strict=True))[::step]
    )
    bottom = top + _HEIGHT
    return (
        f'<text x="{_LEFT}" y="{top - 4}">{escape(name)}</text>'
        f'<text x="{_LEFT - 8}" y="{top + 10}" text-anchor="end">{highest:.0f}</text>'
        f'<text x="{_LEFT - 8}" y="{bottom}" text-anchor="end">0</text>'
        f'<text x="{_LEFT + _WIDTH}" y="{bottom + 14}" text-anchor="end">{last:.0f} s</text>'
        f'<path d="M{_LEFT} {top}V{bottom}H{_LEFT + _WIDTH}" fill="none" stroke="#888"/>'
        f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
    )
