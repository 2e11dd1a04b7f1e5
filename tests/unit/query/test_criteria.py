"""What a key's value asks for (PS3.4 C.2.2.2), and how names are folded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import InvalidQueryError
from gateway.person_name import LONGEST, fold_group, folded
from gateway.query.attributes import BY_TAG
from gateway.query.criteria import AnyOf, Between, Criterion, Number, OneOf, Person, Wildcard, Words, criterion_of

KEYWORDS = {attribute.keyword: attribute for attribute in BY_TAG.values()}


def _asked(keyword: str, value: str, *, is_fuzzy: bool = False) -> Criterion | None:
    return criterion_of(KEYWORDS[keyword], value, is_fuzzy=is_fuzzy)


@pytest.mark.parametrize(
    ("keyword", "value", "expected"),
    [
        ("PatientID", "P1", OneOf(("P1",))),
        ("PatientID", " P1 ", OneOf(("P1",))),
        ("PatientID", "P,1", OneOf(("P,1",))),
        ("PatientID", "P**1?", Wildcard("P*1?")),
        ("PatientID", "", None),
        ("PatientID", "**", None),
        ("AccessionNumber", "A\\B*", AnyOf((OneOf(("A",)), Wildcard("B*")))),
        ("ModalitiesInStudy", "CT,MR", AnyOf((OneOf(("CT",)), OneOf(("MR",))))),
        ("StudyInstanceUID", "1.2\\1.3,1.2", OneOf(("1.2", "1.3"))),
        ("StudyDate", "20260302", Between("20260302", "20260302", False)),
        ("StudyDate", "2026.03.02", Between("20260302", "20260302", False)),
        ("StudyDate", "20260301-", Between("20260301", None, True)),
        ("StudyDate", "-20260301", Between(None, "20260301", True)),
        ("StudyTime", "10", Between("100000.000000", "105959.999999", False)),
        ("StudyTime", "1005-10:06:07.5", Between("100500.000000", "100607.599999", True)),
        ("SeriesNumber", "-7", Number(-7)),
        ("Rows", "512", Number(512)),
        ("PatientName", "DÖE^Jane^^", Person("doe^jane")),
        ("PatientName", "Doe^*", AnyOf((Person("doe^*"), Person("doe")))),
        ("PatientName", "=王*", Person("王*")),
        ("PatientName", "^", None),
    ],
)
def test_values_ask_for(keyword: str, value: str, expected: Criterion | None) -> None:
    """Single values, wildcards, ranges, lists and universal matching."""
    assert _asked(keyword, value) == expected


def test_fuzzy_names_are_words() -> None:
    """With `fuzzymatching` a name is also looked for word by word; other attributes are not."""
    assert _asked("PatientName", "jane, Döe-X", is_fuzzy=True) == AnyOf(
        (Words(("jane", "doe", "x")), Person("jane, doe-x"))
    )
    assert _asked("PatientID", "P 1", is_fuzzy=True) == OneOf(("P 1",))


@pytest.mark.parametrize(
    ("keyword", "value", "expected"),
    [
        ("StudyInstanceUID", "../../etc/passwd", "StudyInstanceUID takes UIDs"),
        ("StudyInstanceUID", "1.2.*", "without wildcards"),
        ("StudyInstanceUID", "1" * 65, "at most 64 characters"),
        ("SOPInstanceUID", "\\".join(["1.2.3"] * 2 + [f"1.{n}" for n in range(5001)]), "at most 5000 UIDs"),
        ("StudyDate", "yesterday", "StudyDate takes a date YYYYMMDD"),
        ("StudyDate", "20261301", "StudyDate takes a date"),
        ("StudyDate", "-", "StudyDate takes a date"),
        ("StudyTime", "2500", "StudyTime takes a time"),
        ("SeriesNumber", "1*", "SeriesNumber takes a whole number"),
        ("InstanceNumber", "\u0661", "InstanceNumber takes a whole number"),
        ("PatientName", "x" * 65536, "PatientName takes at most 1024 characters"),
        ("PatientName", "\\".join("ab" * 51), "PatientName takes at most 100 values"),
        ("PatientID", "a\0b", "PatientID takes no control characters"),
    ],
)
def test_what_cannot_be_asked_is_said(keyword: str, value: str, expected: str) -> None:
    """A wrong value is refused with the key and what it takes, without the value."""
    with pytest.raises(InvalidQueryError) as caught:
        _asked(keyword, value)

    assert expected in str(caught.value)
    assert value not in str(caught.value) or len(value) == 1


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Doe^Jane^^=王^小东", "=doe^jane=王^小东="),
        ("  Müller ^ Jürgen^", "=muller^jurgen="),
        ("STRASSE^É", "=strasse^e="),
        ("Straße", "=strasse="),
        ("ﾔﾏﾀﾞ^ﾀﾛｳ", "=ヤマダ^タロウ="),
        ("==홍^길동", "===홍^길동="),
        ("", ""),
        ("^^=", ""),
    ],
)
def test_names_are_folded(name: str, expected: str) -> None:
    """Case, accents, widths, padding and empty ends make no difference; groups stay apart."""
    assert folded(name) == expected


@given(st.text(max_size=1500))
def test_folding_ends(name: str) -> None:
    """A folded name fits its column, and folding a group again changes nothing."""
    assert len(folded(name)) <= LONGEST
    assert fold_group(fold_group(name)) == fold_group(name)


@given(st.text(max_size=60), st.sampled_from(sorted(KEYWORDS)), st.booleans())
def test_any_value_is_understood_or_refused(value: str, keyword: str, is_fuzzy: bool) -> None:
    """Whatever comes, the answer is a criterion, nothing, or a clear refusal."""
    try:
        _asked(keyword, value, is_fuzzy=is_fuzzy)
    except InvalidQueryError as error:
        assert keyword in str(error)
