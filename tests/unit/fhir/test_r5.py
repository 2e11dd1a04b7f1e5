"""R4 as it is stored becomes R5: what moved, what is called otherwise."""

from __future__ import annotations

import pytest
from fhir_facade.r5 import as_r5


def test_a_report_names_study_and_documents() -> None:
    """`imagingStudy` is `study`, a Media is a DocumentReference, and a size is text (integer64)."""
    report = {
        "resourceType": "DiagnosticReport",
        "imagingStudy": [{"reference": "ImagingStudy/1"}],
        "media": [{"link": {"reference": "Media/2", "type": "Media"}}],
        "presentedForm": [{"contentType": "text/html", "size": 7}],
    }

    assert as_r5(report) == {
        "resourceType": "DiagnosticReport",
        "study": [{"reference": "ImagingStudy/1"}],
        "media": [{"link": {"reference": "DocumentReference/2", "type": "DocumentReference"}}],
        "presentedForm": [{"contentType": "text/html", "size": "7"}],
    }


def test_codings_of_images_are_concepts() -> None:
    """Modality and body site of study and series."""
    study = {
        "resourceType": "ImagingStudy",
        "modality": [{"code": "CT"}],
        "procedureCode": [{"text": "CT"}],
        "series": [{"uid": "1", "modality": {"code": "CT"}, "bodySite": {"display": "CHEST"}}],
    }

    assert as_r5(study) == {
        "resourceType": "ImagingStudy",
        "modality": [{"coding": [{"code": "CT"}]}],
        "procedure": [{"concept": {"text": "CT"}}],
        "series": [
            {"uid": "1", "modality": {"coding": [{"code": "CT"}]}, "bodySite": {"concept": {"text": "CHEST"}}},
        ],
    }


def test_reasons_are_one_list() -> None:
    """Concepts and references of R4 are CodeableReference in R5."""
    request = {"resourceType": "ServiceRequest", "code": {"text": "CT"}, "reasonCode": [{"text": "Fever"}]}
    request |= {"reasonReference": [{"reference": "Observation/1"}]}

    made = as_r5(request)

    assert made["code"] == {"concept": {"text": "CT"}}
    assert made["reason"] == [{"concept": {"text": "Fever"}}, {"reference": {"reference": "Observation/1"}}]
    assert "reasonCode" not in made


def test_a_bundle_is_changed_throughout() -> None:
    """Each entry, and the address of one that is called otherwise."""
    media = {"resourceType": "Media", "status": "entered-in-error", "content": {"url": "Binary/1"}}
    entry = {"fullUrl": "http://h/Media/1", "resource": media}

    (made,) = as_r5({"resourceType": "Bundle", "type": "searchset", "entry": [entry]})["entry"]

    assert made["fullUrl"] == "http://h/DocumentReference/1"
    assert (made["resource"]["resourceType"], made["resource"]["status"]) == ("DocumentReference", "entered-in-error")


def test_the_stored_content_is_not_changed() -> None:
    """The function is pure."""
    stored = {"resourceType": "Task", "statusReason": {"text": "x"}, "reasonCode": {"text": "y"}}
    copy = dict(stored)

    as_r5(stored)

    assert stored == copy


def test_an_audit_event_tells_what_was_done_as_its_code() -> None:
    """Type is the category, the first subtype the code; the patient is named, an address is text."""
    event = {
        "resourceType": "AuditEvent",
        "type": {"code": "110112"},
        "subtype": [{"code": "search"}],
        "outcome": "8",
        "outcomeDesc": "no answer",
        "agent": [{"who": {"display": "curie"}, "requestor": True, "network": {"address": "::1", "type": "2"}}],
        "source": {"site": "Hospital", "observer": {"display": "HM"}, "type": [{"code": "4"}]},
        "entity": [{"what": {"reference": "Patient/1"}, "type": {"code": "1"}, "role": {"code": "1"}}],
    }

    made = as_r5(event)

    assert (made["category"], made["code"]) == ([{"coding": [{"code": "110112"}]}], {"coding": [{"code": "search"}]})
    assert made["outcome"]["code"]["code"] == "8"
    assert made["outcome"]["detail"] == [{"text": "no answer"}]
    assert made["patient"] == {"reference": "Patient/1"}
    assert made["agent"][0]["networkString"] == "::1"
    assert made["source"]["site"] == {"display": "Hospital"}


def test_a_subscription_is_one_to_a_topic() -> None:
    """R4's criteria are a topic with filters; of a type without a topic there is no R5, and the error says so."""
    channel = {"type": "rest-hook", "endpoint": "http://h/x", "payload": "application/fhir+json", "header": ["A: b:c"]}
    subscription = {"resourceType": "Subscription", "status": "active", "reason": "x", "channel": channel}

    made = as_r5(subscription | {"criteria": "DiagnosticReport?status:not=final&patient:Patient.name:exact=A"})

    assert made["topic"] == "urn:hybridmed:subscription-topic:diagnostic-report"
    assert made["filterBy"] == [
        {"resourceType": "DiagnosticReport", "filterParameter": "status", "modifier": "not", "value": "final"},
        {"resourceType": "DiagnosticReport", "filterParameter": "patient:Patient.name:exact", "value": "A"},
    ]
    assert (made["content"], made["contentType"]) == ("full-resource", "application/fhir+json")
    assert made["parameter"] == [{"name": "A", "value": "b:c"}]
    with pytest.raises(LookupError, match="without a topic"):
        as_r5(subscription | {"criteria": "Device?status=active"})
