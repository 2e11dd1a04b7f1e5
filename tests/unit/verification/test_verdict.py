"""What a form says, read into a verdict; and what a row keeps of it."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.verification.verdict import (
    Observer,
    VerdictError,
    Verification,
    person_name,
    read_verdict,
    read_verification,
)

FORM = {"job_id": "j1", "action": "correct", "observer": "Curie Marie", "organisation": "Radium", "comment": "Seen"}


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Curie Marie", "Curie^Marie"),
        ("Curie, Marie Salomea", "Curie^Marie Salomea"),
        ("Curie^Marie^^Prof.", "Curie^Marie^^Prof."),
        ("  Curie  ", "Curie^"),
        ("王小明", "王小明^"),
        ("Cu\x00rie \\ Ma=rie", "Cu^rie / Ma rie"),
    ],
)
def test_a_name_gets_its_caret(text: str, name: str) -> None:
    """Validators ask for one, people type none; what PN forbids becomes something harmless."""
    assert person_name(text) == name


@pytest.mark.parametrize("text", ["", "  ", "^", ",", "a^b^c^d^e^f", "x" * 65])
def test_a_name_that_is_none_is_refused(text: str) -> None:
    """Nobody verifies anonymously, and DICOM has a longest name."""
    with pytest.raises(VerdictError, match="observer"):
        person_name(text)


@given(st.text(max_size=80))
def test_any_text_is_a_name_or_refused(text: str) -> None:
    """What comes out has one to four carets, at most 65 characters and no control character."""
    try:
        name = person_name(text)
    except VerdictError:
        return
    assert 1 <= name.count("^") <= 4
    assert len(name) <= 65
    assert name.isprintable() or not any(ord(char) < 32 for char in name)


def test_corrections_are_read_by_outcome_and_finding() -> None:
    """An answer left empty is none; a tracking identifier may hold a colon."""
    fields = {"class:0:fine": "viral", "class:1:fine:2": "x", "class:0:coarse": "", "remove:0:2": "1", "remove:0:1": ""}

    corrections = read_verdict(FORM | fields).corrections

    assert corrections.answers == {(0, "fine"): "viral", (1, "fine:2"): "x"}
    assert corrections.removed == {(0, 2)}


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("action", "approve", "accept, reject, correct"),
        ("job_id", " ", "job_id"),
        ("job_id", "x" * 65, "job_id"),
        ("observer", "", "observer"),
        ("comment", "x" * 2001, "comment"),
        ("organisation", "x" * 65, "organisation"),
        ("class:x:fine", "viral", "class:<ordinal>"),
        ("remove:0:left", "1", "remove:<ordinal>"),
        ("remove:0:99999999999", "1", "remove:<ordinal>"),
    ],
)
def test_a_wrong_field_is_named(field: str, value: str, said: str) -> None:
    """The sentence says which field, and what was expected."""
    with pytest.raises(VerdictError, match=said) as refused:
        read_verdict(FORM | {field: value})

    assert refused.value.http_status == 422


def test_the_same_form_has_the_same_digest() -> None:
    """A form sent twice is known; another person, comment or correction is another verdict."""
    first = read_verdict(FORM | {"class:0:fine": "viral"})

    assert read_verdict(FORM | {"class:0:fine": "viral", "token": "x"}).digest == first.digest
    for other in ({"observer": "Joliot Irène"}, {"comment": ""}, {"class:0:fine": "normal"}, {"remove:0:1": "1"}):
        assert read_verdict(FORM | {"class:0:fine": "viral"} | other).digest != first.digest


def test_a_verification_outlives_the_database() -> None:
    """What the row keeps is read back as it was."""
    at = datetime(2026, 3, 2, 12, 0, 1, 5, tzinfo=UTC)
    kept = Verification("correct", "Curie^Marie", "Radium", "Seen\ntwice", at, "j1", "d" * 64, ({"ordinal": 0},))

    assert read_verification(json.loads(json.dumps(kept.as_json()))) == kept


def test_a_person_is_shown_as_people_write() -> None:
    """Prefix, given, middle, family, suffix."""
    assert Observer("Curie^Marie^Salomea^Prof.^PhD", "x").display == "Prof. Marie Salomea Curie PhD"
    assert Observer("王^小明", "x").display == "小明 王"
