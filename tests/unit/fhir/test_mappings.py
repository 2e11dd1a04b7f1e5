"""Findings and studies become FHIR: what is kept, what is left out, what is said."""

from __future__ import annotations

import json
import math
import uuid
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from fhir_facade.diagnostic_report import report_code
from fhir_facade.identity import ResourceIds
from fhir_facade.imaging_study import imaging_study_resource
from fhir_facade.patient import patient_id, patient_resource
from fhir_facade.resource import encode, parse
from fhir_facade.service_request import service_request_resource
from fhir_facade.shared import Premises
from fhir_facade.site import Site
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from gateway.report import outcome_role
from gateway.report.assignment import derived_uid
from gateway.report.figures import number
from gateway.report.summary import read_outcomes, summarise
from gateway.report.wording import CHINESE, closing_sentences, conclusion
from inference.findings import LabelSet
from tests.unit.fhir import cases

IDS = ResourceIds(uuid.UUID(int=7))


def observations(job_done: cases.FhirInput) -> list[dict[str, Any]]:
    """Return the Observations of a first revision, which needs no database."""
    about = cases.RENDERER._about(job_done)
    return cases.RENDERER._observations(job_done, about, job_done.artefacts)


def test_tracking_uids_are_those_of_the_dicom_results() -> None:
    """Findings and measurements carry the UIDs that SR and SEG derive, for every outcome of a job."""
    job_done = cases.finished(cases.pneumonia(), cases.pneumonia())
    made = [each["identifier"][0]["value"] for each in observations(job_done) if "hasMember" not in each]
    wanted = [
        "urn:oid:" + derived_uid(job_done.assignment.job_id, 1, outcome_role(f"tracking/{tracking_id}", ordinal))
        for ordinal in (0, 1)
        for tracking_id in ("fine", "lung-left")
    ]

    assert made == wanted


def test_ids_follow_the_series_and_not_the_order() -> None:
    """A series that comes late and is named first does not take the ids of another."""
    other = replace(cases.pneumonia(), series_instance_uid="1.2.9")
    before = {each["id"] for each in observations(cases.finished(cases.pneumonia()))}
    after = [each["id"] for each in observations(cases.finished(other, cases.pneumonia(), revision=2))]

    assert set(after[len(before) :]) == before
    assert len(set(after)) == len(after)


def test_a_component_never_repeats_the_question() -> None:
    """R4 invariant obs-7: no coding of a component equals one of the Observation's code."""
    for each in observations(cases.finished(cases.pneumonia())):
        asked = {(coding.get("system"), coding["code"]) for coding in each["code"]["coding"]}
        answered = {
            (coding.get("system"), coding["code"])
            for component in each.get("component", [])
            for coding in component["code"]["coding"]
        }
        assert not asked & answered


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0.0, "0"),
        (1234.5, "1234.5"),
        (98765.4, "98765"),
        (1.5, "1.5000"),
        (-823.25, "-823.25"),
        (0.012345678, "0.012346"),
    ],
)
def test_numbers_keep_their_digits(value: float, written: str) -> None:
    """Five significant digits, trailing zeros among them, and never an exponent."""
    body = encode(
        {"resourceType": "Observation", "status": "final", "code": {"text": "x"}}
        | {"valueQuantity": {"value": number(value)}}
    )

    assert f'"value":{written}}}'.encode() in body
    assert parse(body)["valueQuantity"]["value"] == Decimal(written)


@given(st.floats(min_value=-1e9, max_value=1e9).filter(lambda value: abs(value) > 1e-9))
def test_numbers_are_close_and_plain(value: float) -> None:
    """What is written differs by less than its last digit."""
    written = number(value)

    assert math.isclose(float(written), value, rel_tol=1e-4)
    assert "E" not in format(written, "f")


def test_the_models_refuse_what_is_no_resource() -> None:
    """A mistake in a mapping ends here, not at a client."""
    with pytest.raises(ValidationError):
        encode({"resourceType": "Observation", "code": {"text": "x"}})


@pytest.mark.parametrize(
    ("name", "texts", "families"),
    [
        ("Müller^Anna Maria^^Dr.", ["Dr. Anna Maria Müller"], ["Müller"]),
        (
            "Yamada^Tarou=山田^太郎=やまだ^たろう",
            ["Tarou Yamada", "太郎 山田", "たろう やまだ"],
            ["Yamada", "山田", "やまだ"],
        ),
        ("=山田^太郎", ["太郎 山田"], ["山田"]),
        ("^^^^", None, None),
        ("", None, None),
        ("Anonymous", ["Anonymous"], ["Anonymous"]),
        ("A^B^C^D^E^F^G", ["D B C A E"], ["A"]),
    ],
)
def test_person_names(name: str, texts: list[str] | None, families: list[str] | None) -> None:
    """Each component group of a DICOM name becomes a HumanName; an empty one none."""
    names = patient_resource(cases.study(patient_name=name), IDS).get("name")

    assert (names and [each["text"] for each in names]) == texts
    assert (names and [each["family"] for each in names]) == families


@pytest.mark.parametrize(
    ("issuer", "identifier"),
    [
        ("HOSPITAL-A", {"assigner": {"display": "HOSPITAL-A"}}),
        ("1.2.40.0.13", {"system": "urn:oid:1.2.40.0.13", "assigner": {"display": "1.2.40.0.13"}}),
        ("http://a.example/ids", {"system": "http://a.example/ids", "assigner": {"display": "http://a.example/ids"}}),
        ("", {}),
    ],
)
def test_an_issuer_is_a_system_where_it_can_be_one(issuer: str, identifier: dict[str, object]) -> None:
    """OIDs and URIs are identifier systems; a local name stays a name."""
    (made,) = patient_resource(cases.study(patient_id_issuer=issuer), IDS)["identifier"]

    assert {name: made[name] for name in ("system", "assigner") if name in made} == identifier


def test_patients_without_an_id_are_not_taken_for_one() -> None:
    """Two studies without patient id have two patients."""
    first, second = (patient_id(cases.study(patient_id="", study_instance_uid=uid), IDS) for uid in ("1.1", "1.2"))

    assert first != second


def test_our_own_results_are_no_part_of_the_study() -> None:
    """SR and SEG that came back from the PACS are neither listed nor counted."""
    own = cases.series("1.2.7", "SEG", is_own=True)

    made = imaging_study_resource(cases.study(), [cases.series(), own], IDS)

    assert (made["numberOfSeries"], made["numberOfInstances"], len(made["series"])) == (1, 1, 1)
    assert [each["code"] for each in made["modality"]] == ["DX"]


@pytest.mark.parametrize(
    ("modality", "body_part", "code"),
    [("DX", "CHEST", "30745-4"), ("CT", "chest ", "24627-2"), ("MR", "", "25056-3"), ("XX", "CHEST", "18748-4")],
)
def test_the_report_names_the_procedure(modality: str, body_part: str, code: str) -> None:
    """LOINC by modality and body part of the evaluated series."""
    made = report_code([cases.series(modality=modality, body_part=body_part)], [cases.pneumonia()])

    assert (made["coding"][0]["system"], made["coding"][0]["code"]) == ("http://loinc.org", code)


def test_the_conclusion_says_what_was_found_and_by_whom() -> None:
    """Answers, measurements, the reason of what was not evaluated, and that nobody verified it."""
    text = conclusion([cases.pneumonia(), cases.not_evaluable()], closing_sentences(None))

    assert text.splitlines() == [
        "cxr-pneumonia 1.0.0: Pneumonia (97 %), Bacterial pneumonia (90 %).",
        "cxr-pneumonia 1.0.0: Left lung: Volume 1234.5 mL.",
        "cxr-pneumonia 1.0.0: not evaluable: lateral view, a frontal one was expected",
        "Result of an algorithm, not verified by a person.",
    ]


def test_control_characters_do_not_reach_the_wire() -> None:
    """A NUL in a name would be refused by databases and clients alike."""
    body = encode(patient_resource(cases.study(patient_name="A\x00B^\x1bC", patient_id="1\x002"), IDS))

    assert b"\\u00" not in body
    assert json.loads(body)["identifier"][0]["value"] == "1 2"


def test_the_conclusion_is_told_in_chinese() -> None:
    """Answers, structures, the reason by its code, and verification; a correction is no number of the algorithm's."""
    closing = closing_sentences(None, None, CHINESE)

    text = conclusion([cases.pneumonia(), cases.not_evaluable()], closing, {(0, "fine")}, CHINESE)

    assert text.splitlines() == [
        "cxr-pneumonia 1.0.0:肺炎（97 %）、细菌性肺炎（已更正）。",  # noqa: RUF001 # Chinese brackets
        "cxr-pneumonia 1.0.0:左肺:体积 1234.5 mL。",
        "cxr-pneumonia 1.0.0:无法评估:投照体位不在模型适用范围内",
        "算法结果,未经人工核实。",
    ]


def test_a_group_holds_the_measurements_of_a_segment() -> None:
    """Parent and members share site, tracking UID and the DICOM objects they are from."""
    job_done = cases.whole(cases.lungs(), bundle="ct-lung")
    made = {each["id"]: each for each in observations(job_done)}
    groups = [each for each in made.values() if "hasMember" in each]

    assert [each["bodySite"]["text"] for each in groups] == ["Right lung", "Left lung"]
    for group in groups:
        members = [made[each["reference"].removeprefix("Observation/")] for each in group["hasMember"]]
        assert [each["code"]["text"] for each in members] == [
            *("Volume", "Attenuation Coefficient", "Share of voxels below -950 HU"),
        ]
        assert [each["valueQuantity"]["code"] for each in members] == ["mL", "[hnsf'U]", "%"]
        for name in ("bodySite", "derivedFrom", "identifier"):
            assert {json.dumps(each[name]) for each in members} == {json.dumps(group[name])}
        assert [each.get("display") for each in group["derivedFrom"]] == [
            *(None, "DICOM Segmentation", "DICOM SR with the measurements"),
        ]


def test_probabilities_and_uncertainty_are_components() -> None:
    """One for each class of the level, and one for the spread over them; codes carry their Chinese names."""
    coarse = observations(cases.finished(cases.pneumonia()))[0]

    assert [each["valueQuantity"]["value"] for each in coarse["component"]] == [
        *(Decimal("3.0000"), Decimal("97.0000"), Decimal("19.4392")),
    ]
    assert [each["code"]["coding"][0]["code"] for each in coarse["component"]] == [
        *("probability-coarse-normal", "probability-coarse-pneumonia", "uncertainty"),
    ]
    answer = coarse["valueCodeableConcept"]["coding"][0]
    assert answer["_display"]["extension"][0]["extension"][1]["valueString"] == "肺炎"


def test_the_models_part_of_the_uncertainty_is_a_component() -> None:
    """Where the model tells it, after the summary of the job too; else there is none."""
    outcome = cases.pneumonia()
    parted = replace(outcome, findings=(replace(outcome.findings[0], epistemic=0.0123), *outcome.findings[1:]))
    (read,) = read_outcomes(json.loads(json.dumps(summarise([parted]))), cases.ALGORITHM)

    for each in (parted, read):
        found = [
            {part["code"]["coding"][0]["code"]: part.get("valueQuantity") for part in observation["component"]}
            for observation in observations(cases.finished(each))[:2]
        ]
        assert found[0]["epistemic"]["value"] == Decimal("1.2300")
        assert found[0]["epistemic"]["code"] == "%"
        assert "uncertainty" in found[0] and "epistemic" not in found[1]


def test_the_classes_that_hold_the_true_one_are_a_component() -> None:
    """Where the model states a coverage they are named with it, after the summary of the job too; else nothing is."""
    outcome = cases.pneumonia()
    coarse = replace(outcome.findings[0], label_set=LabelSet(("pneumonia", "normal"), 0.9))
    stated = replace(outcome, findings=(coarse, *outcome.findings[1:]))
    (read,) = read_outcomes(json.loads(json.dumps(summarise([stated]))), cases.ALGORITHM)

    for each in (stated, read):
        first, second = observations(cases.finished(each))[:2]
        said = [part for part in first["component"] if "valueString" in part]
        assert [part["code"]["coding"][0]["code"] for part in said] == ["label-set"]
        assert said[0]["valueString"] == (
            "By the algorithm one of: Pneumonia, Normal. So it is in 90 % of cases like those of its calibration."
        )
        assert not any("valueString" in part for part in second["component"])


@pytest.mark.parametrize(("url", "count"), [("https://ai.example", 2), (None, 0)])
def test_endpoints_are_told_where_an_address_is_known(url: str | None, count: int) -> None:
    """An address that only this machine knows is worse than none."""
    premises = Premises(IDS, site=Site(public_url=url))
    made = list(premises.resources(cases.study(), [cases.series()]))
    endpoints = [each for each in made if each["resourceType"] == "Endpoint"]
    (images,) = (each for each in made if each["resourceType"] == "ImagingStudy")

    assert [each["address"] for each in endpoints] == [f"{url}/dicomweb", f"{url}/viewer"][:count]
    assert len(images.get("endpoint", [])) == count


def test_the_order_is_told_where_the_images_name_it() -> None:
    """Accession, placer number, coded procedure and reason; nothing where there is no accession number."""
    made = service_request_resource(cases.study(), cases.ORDER, IDS)

    assert made is not None
    assert [each["value"] for each in made["identifier"]] == ["ACC-1", "PL-1", "RP-9"]
    assert (made["code"]["coding"][0]["code"], made["code"]["text"]) == ("399208008", "Thorax p.a.")
    assert made["reasonCode"] == [{"text": "Fever"}]
    assert service_request_resource(cases.study(accession_number=" "), cases.ORDER, IDS) is None
