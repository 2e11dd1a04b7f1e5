"""The summary that lists show."""

import json
import math
from dataclasses import replace

import numpy as np

from gateway.report.summary import (
    describe_algorithm,
    not_evaluable_reason,
    read_algorithm,
    read_outcomes,
    retold,
    summarise,
)
from inference.findings import (
    Algorithm,
    ClassProbability,
    Code,
    Finding,
    Findings,
    Measurement,
    NotEvaluable,
    Segment,
    SourceFrame,
)

AI = Algorithm("lungs", "1.0", "maker", Code("123109", "DCM", "Artificial Intelligence"), "f" * 64)
NORMAL = ClassProbability("normal", Code("17621005", "SCT", "Normal"), 0.03)
PNEUMONIA = ClassProbability("pneumonia", Code("233604007", "SCT", "Pneumonia"), 0.97)
LUNG = Code("39607008", "SCT", "Lung")
FINDING = Finding("coarse", "coarse", Code("RID5350", "RADLEX", "pneumonia"), PNEUMONIA, (NORMAL, PNEUMONIA), LUNG)
SEGMENT = Segment(
    tracking_id="lung-left",
    number=1,
    label="left lung",
    category=LUNG,
    type=LUNG,
    mask=np.ones((1, 2, 2), bool),
    color_lab=(50.0, 0.0, 0.0),
    measurements=(Measurement(Code("118565006", "SCT", "Volume"), 1234.5678, Code("mL", "UCUM", "milliliter")),),
)
EVALUATED = Findings(AI, "1.2.3", (SourceFrame("1.2.3.4"),), (FINDING,), (SEGMENT,))
WITHHELD = NotEvaluable(AI, "projection", "lateral view", "1.2.4")


def test_the_line_names_answers_and_first_measurements() -> None:
    """What a table has room for."""
    assert summarise([EVALUATED])["text"] == "pneumonia 0.97, left lung 1235 mL"


def test_the_summary_is_json_with_every_probability() -> None:
    """The database keeps it; voxels are left out."""
    outcome = json.loads(json.dumps(summarise([EVALUATED])))["outcomes"][0]

    (finding,) = outcome["findings"]
    assert finding["answer"] == "pneumonia"
    assert {each["name"]: each["probability"] for each in finding["alternatives"]} == {
        "normal": 0.03,
        "pneumonia": 0.97,
    }
    assert outcome["segments"][0]["measurements"][0]["value"] == 1234.5678
    assert "mask" not in outcome["segments"][0]


def test_a_withheld_answer_is_summarised_by_its_reason() -> None:
    """The stable code is there for programs, the sentence for people."""
    outcome = summarise([WITHHELD])["outcomes"][0]

    assert outcome == {
        "evaluable": False,
        "series_instance_uid": "1.2.4",
        "code": "projection",
        "reason": "lateral view",
    }


def test_a_job_is_not_evaluable_only_where_no_series_was() -> None:
    """One series that was evaluated makes a result."""
    assert not_evaluable_reason([WITHHELD, WITHHELD]) == "not evaluable: lateral view"
    assert not_evaluable_reason([WITHHELD, EVALUATED]) is None


def test_what_could_not_be_measured_is_null() -> None:
    """JSON has no NaN, and PostgreSQL refuses it; read back, the outcome is as it was."""
    (volume,) = SEGMENT.measurements
    unmeasured = replace(EVALUATED, segments=(replace(SEGMENT, measurements=(replace(volume, value=math.nan),)),))

    summary = json.loads(json.dumps(summarise([unmeasured]), allow_nan=False))

    assert summary["outcomes"][0]["segments"][0]["measurements"][0]["value"] is None
    (read,) = read_outcomes(summary, read_algorithm(json.loads(json.dumps(describe_algorithm(AI)))))
    assert isinstance(read, Findings)
    assert read.algorithm == AI
    assert [replace(each, is_positive=None) for each in read.findings[0].alternatives] == list(FINDING.alternatives)
    assert math.isnan(read.segments[0].measurements[0].value)


def test_the_line_gives_no_probability_to_a_persons_answer() -> None:
    """The algorithm's is not the person's."""
    assert summarise([EVALUATED], [(0, "coarse")])["text"] == "pneumonia, left lung 1235 mL"


def _stored(*outcomes: Findings | NotEvaluable) -> dict[str, object]:
    """Return the summary as a database gives it back."""
    read: dict[str, object] = json.loads(json.dumps(summarise(outcomes)))
    return read


def test_the_same_answer_again_is_told_as_it_is() -> None:
    """Masks and all: nothing is read back."""
    assert retold([EVALUATED, WITHHELD], AI, _stored(EVALUATED, WITHHELD)) == (EVALUATED, WITHHELD)


def test_a_second_evaluation_tells_what_was_told_and_shows_its_own_masks() -> None:
    """Another device gave other last digits; what is at a PACS already holds."""
    other = replace(SEGMENT, measurements=(replace(SEGMENT.measurements[0], value=1234.5679),))
    again = replace(EVALUATED, segments=(other,))

    (told,) = retold([again], AI, _stored(EVALUATED))

    assert isinstance(told, Findings)
    assert told.segments[0].measurements[0].value == SEGMENT.measurements[0].value
    assert told.segments[0].mask is SEGMENT.mask
    assert (told.frames, told.heat_maps) == (EVALUATED.frames, EVALUATED.heat_maps)


def test_a_second_evaluation_that_finds_other_segments_draws_nothing() -> None:
    """The outcome that was told has no frames then; one that is withheld now is told all the same."""
    again = replace(EVALUATED, segments=(replace(SEGMENT, tracking_id="lung-right"),))
    summary = _stored(EVALUATED)

    (other,), (withheld,) = retold([again], AI, summary), retold([WITHHELD], AI, summary)

    for told in (other, withheld):
        assert isinstance(told, Findings)
        assert told.frames == ()
        assert told.findings[0].answer.probability == PNEUMONIA.probability


def test_a_renewed_bundle_does_not_sign_what_the_one_before_told() -> None:
    """The first evaluation's name stands, and no mask of the second is shown for the one that is out."""
    renewed = replace(EVALUATED, algorithm=replace(AI, version="1.1"))

    (told,) = retold([renewed], AI, _stored(EVALUATED))

    assert isinstance(told, Findings)
    assert told.algorithm == AI
    assert told.frames == ()
