"""R4 as it is stored becomes R5: what moved, what is called otherwise."""

from __future__ import annotations

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
