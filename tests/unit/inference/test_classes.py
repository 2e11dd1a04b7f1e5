"""From probabilities to findings."""

from dataclasses import replace

import numpy as np
import pytest

from inference.bundle import default_bundle_dir, load_bundle
from inference.classes import answer_levels
from inference.findings import LabelSet

_BUNDLE = load_bundle(default_bundle_dir() / "cxr-pneumonia", verify_weights=False)


def test_pneumonia_is_answered_on_both_levels() -> None:
    """The fine finding hangs below the coarse one and carries the joint probability."""
    coarse, fine = answer_levels(_BUNDLE, [np.array([0.2, 0.8]), np.array([0.2, 0.3, 0.5])])

    assert (coarse.answer.name, coarse.answer.probability) == ("pneumonia", 0.8)
    assert (fine.answer.name, fine.answer.probability) == ("viral", 0.5)
    assert fine.parent_id == coarse.tracking_id == "coarse"
    assert [label.name for label in fine.alternatives] == ["normal", "bacterial", "viral"]


def test_normal_has_no_finer_answer() -> None:
    """Below 'normal' there is nothing to ask."""
    findings = answer_levels(_BUNDLE, [np.array([0.9, 0.1]), np.array([0.9, 0.07, 0.03])])

    assert [(finding.level, finding.answer.name) for finding in findings] == [("coarse", "normal")]


def test_the_fine_answer_never_contradicts_the_coarse_one() -> None:
    """Pneumonia of 0.6 split evenly: 'normal' is the single most probable fine class, but no kind of pneumonia."""
    _, fine = answer_levels(_BUNDLE, [np.array([0.4, 0.6]), np.array([0.4, 0.29, 0.31])])

    assert fine.answer.name == "viral"


def test_the_threshold_decides_the_positive_class() -> None:
    """With a threshold of 0.3 a probability of 0.35 is answered as pneumonia, 0.25 is not."""
    levels = (replace(_BUNDLE.levels[0], threshold=0.3), _BUNDLE.levels[1])
    bundle = replace(_BUNDLE, levels=levels)

    suspicious = answer_levels(bundle, [np.array([0.65, 0.35]), np.array([0.65, 0.2, 0.15])])
    calm = answer_levels(bundle, [np.array([0.75, 0.25]), np.array([0.75, 0.2, 0.05])])

    assert suspicious[0].answer.name == "pneumonia"
    assert calm[0].answer.name == "normal"


def test_tracking_identifiers_differ_between_images() -> None:
    """The suffix of a later image ends every identifier, the parent's included."""
    findings = answer_levels(_BUNDLE, [np.array([0.2, 0.8]), np.array([0.2, 0.3, 0.5])], suffix=".2")

    assert [(finding.tracking_id, finding.parent_id) for finding in findings] == [
        ("coarse.2", None),
        ("fine.2", "coarse.2"),
    ]


def test_each_class_tells_its_kind_and_whether_it_is_sought() -> None:
    """The level's positive class, or any but the first; 'bacterial' is a kind of 'pneumonia'."""
    coarse, fine = answer_levels(_BUNDLE, [np.array([0.2, 0.8]), np.array([0.2, 0.3, 0.5])])

    assert [(each.parent, each.is_positive) for each in coarse.alternatives] == [(None, False), (None, True)]
    assert [(each.parent, each.is_positive) for each in fine.alternatives] == [
        ("normal", False),
        ("pneumonia", True),
        ("pneumonia", True),
    ]


def test_a_finding_tells_the_classes_that_may_be_true() -> None:
    """Every class from its bound up is in the set, most probable first; without a stated coverage there is none."""
    bounds = {"coarse": {"normal": 0.3, "pneumonia": 0.6}, "fine": {"normal": 0.3, "bacterial": 0.2, "viral": 0.4}}
    stated = replace(_BUNDLE, calibration={"coverage": 0.9, "bounds": bounds})
    silent = replace(_BUNDLE, calibration={})
    probabilities = [np.array([0.2, 0.8]), np.array([0.2, 0.35, 0.45])]

    coarse, fine = answer_levels(stated, probabilities)

    assert coarse.label_set == LabelSet(("pneumonia",), 0.9)
    assert fine.label_set == LabelSet(("viral", "bacterial"), 0.9)
    assert [each.label_set for each in answer_levels(silent, probabilities)] == [None, None]


def test_uncertainty_is_the_share_of_the_greatest_entropy() -> None:
    """0 where one class is certain, 1 where all are alike."""
    certain, _ = answer_levels(_BUNDLE, [np.array([0.0, 1.0]), np.array([0.0, 1.0, 0.0])])
    open_, _ = answer_levels(_BUNDLE, [np.array([0.5, 0.5]), np.array([0.5, 0.5, 0.0])])

    assert certain.uncertainty == 0
    assert open_.uncertainty == pytest.approx(1)
