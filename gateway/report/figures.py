"""How values are written in words and in FHIR: digits that the measurement is worth."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from decimal import Decimal

from inference.findings import Code, Finding

UNCERTAINTY = Code("uncertainty", "99HYBRIDMED", "Uncertainty")
EPISTEMIC = Code("epistemic", "99HYBRIDMED", "Uncertainty from limited training data")
"""The part of the uncertainty that more training images could remove; the rest lies in the image."""
_SIGNIFICANT_DIGITS = 5
_PERCENT_DECIMALS = 4
"""As in the SR."""


def number(value: float) -> Decimal:
    """Return a measured value with five significant digits, and never fewer than its whole ones."""
    if value == 0:
        return Decimal(0)
    decimals = max(0, _SIGNIFICANT_DIGITS - 1 - math.floor(math.log10(abs(value))))
    return Decimal(f"{value:.{decimals}f}")


def percent(share: float) -> Decimal:
    """Return a share of one in percent, as the SR gives it."""
    return Decimal(f"{100 * share:.{_PERCENT_DECIMALS}f}")


def spread(shares: Sequence[float]) -> float | None:
    """Return the entropy of probabilities over its greatest value: 0 certain, 1 undecided; None for fewer than two."""
    total = sum(shares)
    if len(shares) < 2 or not total > 0:  # noqa: PLR2004 # one class has no spread
        return None
    entropy = -sum(share / total * math.log(share / total) for share in shares if share > 0)
    return max(0.0, min(1.0, entropy / math.log(len(shares))))


def uncertainties(finding: Finding) -> Iterator[tuple[Code, float]]:
    """Yield the uncertainty of a finding, and the model's part of it where that is told; nothing for one class."""
    total = spread([each.probability for each in finding.alternatives])
    if total is None:
        return
    yield UNCERTAINTY, total
    if finding.epistemic is not None:
        yield EPISTEMIC, finding.epistemic
