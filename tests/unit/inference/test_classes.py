"""From probabilities to findings."""

from dataclasses import replace

import numpy as np

from inference.bundle import default_bundle_dir, load_bundle
from inference.classes import answer_levels

_LEVELS = load_bundle(default_bundle_dir() / "cxr-pneumonia", verify_weights=False).levels


def test_pneumonia_is_answered_on_both_levels() -> None:
    """The fine finding hangs below the coarse one and carries the joint probability."""
    coarse, fine = answer_levels(_LEVELS, [np.array([0.2, 0.8]), np.array([0.2, 0.3, 0.5])])

    assert (coarse.answer.name, coarse.answer.probability) == ("pneumonia", 0.8)
    assert (fine.answer.name, fine.answer.probability) == ("viral", 0.5)
    assert fine.parent_id == coarse.tracking_id == "coarse"
    assert [label.name for label in fine.alternatives] == ["normal", "bacterial", "viral"]


def test_normal_has_no_finer_answer() -> None:
    """Below 'normal' there is nothing to ask."""
    findings = answer_levels(_LEVELS, [np.array([0.9, 0.1]), np.array([0.9, 0.07, 0.03])])

    assert [(finding.level, finding.answer.name) for finding in findings] == [("coarse", "normal")]


def test_the_fine_answer_never_contradicts_the_coarse_one() -> None:
    """Pneumonia of 0.6 split evenly: 'normal' is the single most probable fine class, but no kind of pneumonia."""
    _, fine = answer_levels(_LEVELS, [np.array([0.4, 0.6]), np.array([0.4, 0.29, 0.31])])

    assert fine.answer.name == "viral"


def test_the_threshold_decides_the_positive_class() -> None:
    """With a threshold of 0.3 a probability of 0.35 is answered as pneumonia, 0.25 is not."""
    levels = (replace(_LEVELS[0], threshold=0.3), _LEVELS[1])

    suspicious = answer_levels(levels, [np.array([0.65, 0.35]), np.array([0.65, 0.2, 0.15])])
    calm = answer_levels(levels, [np.array([0.75, 0.25]), np.array([0.75, 0.2, 0.05])])

    assert suspicious[0].answer.name == "pneumonia"
    assert calm[0].answer.name == "normal"


def test_tracking_identifiers_differ_between_images() -> None:
    """The suffix of a later image ends every identifier, the parent's included."""
    findings = answer_levels(_LEVELS, [np.array([0.2, 0.8]), np.array([0.2, 0.3, 0.5])], suffix=".2")

    assert [(finding.tracking_id, finding.parent_id) for finding in findings] == [
        ("coarse.2", None),
        ("fine.2", "coarse.2"),
    ]


def test_each_class_tells_its_kind_and_whether_it_is_sought() -> None:
    """The level's positive class, or any but the first; 'bacterial' is a kind of 'pneumonia'."""
    coarse, fine = answer_levels(_LEVELS, [np.array([0.2, 0.8]), np.array([0.2, 0.3, 0.5])])

    assert [(each.parent, each.is_positive) for each in coarse.alternatives] == [(None, False), (None, True)]
    assert [(each.parent, each.is_positive) for each in fine.alternatives] == [
        ("normal", False),
        ("pneumonia", True),
        ("pneumonia", True),
    ]
