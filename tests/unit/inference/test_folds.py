"""Parts of a cross-validation, each by its own mathematics."""

from pathlib import Path

import pytest
import torch
from scipy import stats

from inference.networks.heads import FlatHead, hierarchical_log_probabilities
from inference.training.card import ablation_page, folds_page, write_section
from inference.training.data import Part, part_in_fold
from inference.training.folds import interval, summarised

GROUPS = [f"child{number}" for number in range(4000)]


def test_every_group_is_for_validation_in_one_fold() -> None:
    """Folds are about equal, and the calibration groups of a fold are the stated share of the others."""
    parts = [[part_in_fold(group, 1, 5, fold, 0.08) for group in GROUPS] for fold in range(1, 6)]

    assert all(sum(part is Part.VALIDATION for part in of_group) == 1 for of_group in zip(*parts, strict=True))
    for of_fold in parts:
        assert of_fold.count(Part.VALIDATION) == pytest.approx(800, rel=0.1)
        assert of_fold.count(Part.CALIBRATION) == pytest.approx(0.08 * 3200, rel=0.25)


def test_the_interval_is_students() -> None:
    """Mean, and half width by the t distribution of SciPy."""
    values = [0.95, 0.97, 0.96, 0.99, 0.98]

    low, high = stats.t.interval(0.95, 4, loc=0.97, scale=stats.sem(values))
    assert interval(values) == pytest.approx({"mean": 0.97, "low": low, "high": high}, abs=1e-4)


def test_counts_are_summed_and_figures_averaged() -> None:
    """Tables within tables keep their shape."""
    reports = [
        {"weights_sha256": "a", "images": 10, "groups": 5, "not_evaluable": 1, "coarse": {"auc": 0.9}},
        {"weights_sha256": "b", "images": 12, "groups": 6, "not_evaluable": 0, "coarse": {"auc": 0.7}},
    ]

    found = summarised(reports)

    assert [found[name] for name in ("folds", "images", "groups", "not_evaluable")] == [2, 22, 11, 1]
    assert found["coarse"]["auc"]["mean"] == pytest.approx(0.8)  # type: ignore[index]
    assert "weights_sha256" not in found


def test_a_flat_head_gives_the_probabilities_of_one_softmax() -> None:
    """Fine probabilities are that softmax's, coarse ones their sums."""
    torch.manual_seed(0)
    head = FlatHead(6, (0, 1, 1)).eval()
    levels = [torch.randn(4, 1, 3, 3) for _ in range(3)]

    logits = head(levels).classes
    said = hierarchical_log_probabilities(logits, (0, 1, 1))

    expected = torch.softmax(logits.fine, dim=1)
    assert torch.allclose(said.fine.exp(), expected, atol=1e-6)
    assert torch.allclose(said.coarse.exp()[:, 1], expected[:, 1:].sum(dim=1), atol=1e-6)


def test_a_section_of_the_card_is_replaced_and_the_rest_kept(tmp_path: Path) -> None:
    """Written twice it stands once, where it stood."""
    card = tmp_path / "README.md"
    card.write_text("# Card\n\nBefore.\n", encoding="utf-8")

    write_section(tmp_path, "ablation", "first")
    card.write_text(card.read_text(encoding="utf-8") + "\nAfter.\n", encoding="utf-8")
    write_section(tmp_path, "ablation", "second")

    text = card.read_text(encoding="utf-8")
    assert "first" not in text
    assert text.index("Before.") < text.index("second") < text.index("After.")


def test_an_interval_is_told_within_what_the_figure_can_be() -> None:
    """Student's t may reach over 1 or below 0: the card does not; a cross-entropy has no top."""
    figures = {
        "folds": 2,
        "images": 20,
        "groups": 10,
        "coarse": {
            "accuracy": {"mean": 0.99, "low": 0.95, "high": 1.03},
            "auc": {"mean": 0.98, "low": 0.9, "high": 1.1},
        },
        "dice": {"right-lung": {"mean": 0.95, "low": -0.1, "high": 1.2}},
        "calibration": {"cross_entropy": {"mean": 0.9, "low": -0.2, "high": 2.0}},
    }

    page = folds_page(figures)

    assert "| coarse: accuracy | 99.0 % (95.0 % to 100.0 %) |" in page
    assert "| coarse: auc | 0.980 (0.900 to 1.000) |" in page
    assert "| dice: right-lung | 0.950 (0.000 to 1.000) |" in page
    assert "| calibration: cross entropy | 0.900 (0.000 to 2.000) |" in page


def test_the_ablation_is_told_within_bounds_too() -> None:
    """A calibration error near nothing does not go below it."""
    named = ("coarse_auc", "coarse_accuracy", "fine_auc", "accuracy_all_classes", "calibration_error")
    row = {name: {"mean": 0.01, "low": -0.02, "high": 0.04} for name in named}

    page = ablation_page({"folds": 2, "epochs": 1, "size": 32, "variants": {"base": row}})

    assert page.count("0.010 (0.000 to 0.040)") == 3
    assert page.count("1.0 % (0.0 % to 4.0 %)") == 2
