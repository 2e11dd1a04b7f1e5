"""Which bundles a study wants."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from pydicom.tag import Tag

from gateway.config import Match, Rule
from gateway.errors import ConfigurationError
from gateway.routing import BundleOffer, check_rules, decide, parse_tag
from gateway.store.studies import SeriesRow, StudyRow

NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
STUDY = StudyRow(
    study_instance_uid="1.2.3",
    patient_id="",
    patient_id_issuer="",
    patient_name="",
    patient_birth_date="",
    patient_sex="",
    accession_number="",
    accession_issuer="",
    study_id="",
    study_date="",
    study_time="",
    timezone_offset="",
    study_description="CT Thorax nativ",
    referring_physician="",
    announced_count=None,
    calling_ae="CT1",
    state="receiving",
    state_reason=None,
    priority="routine",
    revision=1,
    first_received_at=NOON,
    last_received_at=NOON,
    completed_at=None,
)
CT = SeriesRow("1.2.3", "1.2.3.1", "CT", "CHEST", "Lung 1.0", 1, "", "", 300, 1, is_own=False)
MR = SeriesRow("1.2.3", "1.2.3.2", "MR", "BRAIN", "T1 mprage", 2, "", "", 160, 1, is_own=False)
REPORT = SeriesRow("1.2.3", "1.2.3.9", "SR", "", "Report", 9, "", "", 1, 2, is_own=False)
LUNG = BundleOffer("ct-lung", lambda modality, body_part, _: modality == "CT" and body_part == "CHEST")
BRAIN = BundleOffer("mr-hippocampus", lambda modality, *_: modality == "MR")
OFFERS = (LUNG, BRAIN)


def no_tags(_series: str, _tag: str) -> str:
    """Answer as a file without the tag does."""
    return ""


def test_without_rules_every_bundle_that_wants_a_series_runs() -> None:
    """A study of two modalities gets both bundles, routinely, to all destinations."""
    decision = decide(STUDY, [CT, MR], (), OFFERS, no_tags)

    assert decision.bundles == ("ct-lung", "mr-hippocampus")
    assert decision.is_routed
    assert (decision.priority, decision.destinations, decision.rule, decision.reason) == ("routine", None, None, None)


def test_a_study_nothing_wants_says_what_it_is_and_what_there_is() -> None:
    """The operator reads modality, body part and the bundles installed, and no free text."""
    decision = decide(STUDY, [replace(CT, body_part="ABDOMEN", series_description="SMITH JOHN")], (), OFFERS, no_tags)

    assert not decision.is_routed
    assert decision.reason == "no bundle takes modality CT, body part ABDOMEN; installed: ct-lung, mr-hippocampus"


def test_the_first_rule_that_matches_decides() -> None:
    """Priority and destinations are the rule's; later rules are not asked."""
    rules = (
        Rule(name="mr", match=Match(modality=("MR",)), bundles=("mr-hippocampus",)),
        Rule(name="urgent", match=Match(modality=("ct",)), bundles=("ct-lung",), priority="stat", destinations=("A",)),
        Rule(name="rest", bundles=("mr-hippocampus",)),
    )
    decision = decide(STUDY, [CT], rules, OFFERS, no_tags)

    assert (decision.rule, decision.bundles) == ("urgent", ("ct-lung",))
    assert (decision.priority, decision.destinations) == ("stat", ("A",))


def test_all_conditions_must_hold_in_one_series() -> None:
    """A chest CT beside a brain MR does not make a chest MR."""
    rules = (Rule(name="x", match=Match(modality=("MR",), body_part=("CHEST",)), bundles=("ct-lung",)),)
    decision = decide(STUDY, [CT, MR], rules, OFFERS, no_tags)

    assert not decision.is_routed
    assert decision.reason == "no rule matches modality CT, body part CHEST or modality MR, body part BRAIN"


@pytest.mark.parametrize(
    ("match", "is_matched"),
    [
        (Match(calling_ae=("CT1",)), True),
        (Match(calling_ae=("CT2",)), False),
        (Match(body_part=("chest",)), True),
        (Match(description="thorax"), True),
        (Match(description=r"^lung \d"), True),
        (Match(description="abdomen"), False),
        (Match(tags={"ConvolutionKernel": "^B[67]0"}), True),
        (Match(tags={"0018,1210": "^B[67]0", "Manufacturer": "Siemens"}), False),
    ],
)
def test_each_condition(match: Match, is_matched: bool) -> None:
    """Calling AE, body part, description of study or series, and tags each take and refuse."""
    values = {"ConvolutionKernel": "B70f", "0018,1210": "B70f", "Manufacturer": "Philips"}
    rules = (Rule(name="x", match=match, bundles=("ct-lung",)),)

    assert decide(STUDY, [CT], rules, OFFERS, lambda _, tag: values[tag]).is_routed is is_matched


def test_a_rule_with_a_bundle_that_is_not_installed_leaves_the_study_on_the_list() -> None:
    """The bundles that are there run all the same."""
    rules = (Rule(name="x", bundles=("ct-lung", "us-thyroid")),)
    decision = decide(STUDY, [CT], rules, OFFERS, no_tags)

    assert decision.bundles == ("ct-lung",)
    assert not decision.is_routed
    assert decision.reason == "rule 'x' names a bundle that is not installed: us-thyroid"


def test_a_rule_without_bundles_keeps_the_study_and_runs_nothing() -> None:
    """An operator can leave studies out on purpose, and still sees them."""
    decision = decide(STUDY, [CT], (Rule(name="archive"),), OFFERS, no_tags)

    assert (decision.bundles, decision.is_routed) == ((), False)
    assert decision.reason == "rule 'archive' keeps the study and runs nothing"


def test_our_own_results_that_come_back_start_nothing() -> None:
    """A PACS that routes our heat map to us does not make us run for ever."""
    back = replace(CT, series_instance_uid="1.2.3.8", newest_revision=2, is_own=True)
    late = replace(STUDY, revision=2)

    assert decide(late, [CT, back], (), OFFERS, no_tags).bundles == ()
    assert decide(late, [CT, back], (), OFFERS, no_tags).is_routed
    assert decide(late, [CT, back], (Rule(name="x", bundles=("ct-lung",)),), OFFERS, no_tags).bundles == ()
    assert not decide(STUDY, [back], (), OFFERS, no_tags).is_routed


def test_a_late_report_does_not_process_the_images_again() -> None:
    """Only a bundle whose series has something new runs in a later revision."""
    late = replace(STUDY, revision=2)
    decision = decide(late, [CT, MR, REPORT], (), OFFERS, no_tags)

    assert (decision.bundles, decision.is_routed) == ((), True)
    assert decision.reason == "nothing new for ct-lung, mr-hippocampus: the results of the revision before stand"
    assert decide(late, [CT, replace(MR, newest_revision=2)], (), OFFERS, no_tags).bundles == ("mr-hippocampus",)


@pytest.mark.parametrize("name", ["ConvolutionKernel", "0018,1210", "(0018, 1210)"])
def test_tags_are_named_by_keyword_or_number(name: str) -> None:
    """Both spellings mean the same element."""
    assert parse_tag(name) == Tag(0x0018, 0x1210)


@pytest.mark.parametrize("tags", [{"Kernel": "x"}, {"0018,12": "x"}])
def test_a_rule_that_cannot_work_is_refused_at_start(tags: dict[str, str]) -> None:
    """An unknown keyword and a broken pattern name the rule."""
    with pytest.raises(ConfigurationError, match="rule 'x': tag"):
        check_rules([Rule(name="x", match=Match(tags=tags))])
