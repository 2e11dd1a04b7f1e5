"""Queries over a real database, SQLite and PostgreSQL: matching against a plain matcher, levels, counts, pages."""

from __future__ import annotations

import itertools
import random
import re
import unicodedata
from collections.abc import Mapping
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.query import Query, find, locate, locate_many
from gateway.query.attributes import BY_TAG, SERIES_UID, STUDY_UID
from gateway.query.narrowing import few_studies
from gateway.query.plan import bounds, statement
from gateway.store import Store
from gateway.store.tables import artefact, job, rejection
from tests.stores import NOON, add_instance, add_series, add_study

CT, SEG = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.66.4"
TAGS = {attribute.keyword: attribute.tag for attribute in BY_TAG.values()}
NAME_PARTS = (
    "Ann",
    "ann",
    "Ánn",
    "Bob",
    "Müller",
    "O'Neil",
    "x_y",
    "50%",
    "[a]",
    "王",
    "小东",
    "Anna Lena",
    "Bo-Ann",
    "",
)
TEXTS = ("", "A1", "a1", "A12", "A_2", "A%2", "[A]2", "A1*", "\\A", "A 1", "ä")
DATES = ("", "20200101", "20200102", "20210615")
TIMES = ("", "09", "0930", "093000", "093000.5", "09:30:01", "235959.999999")
MODALITIES = ("CT", "MR", "SEG", "C")


def keys(**values: str) -> dict[int, str]:
    """Return keys by keyword."""
    return {TAGS[keyword]: value for keyword, value in values.items()}


def add_result(connection: sa.Connection, study_uid: str, uid: str, **values: Any) -> None:
    """Insert an object of a finished job of ours."""
    connection.execute(
        sa.insert(job).values(
            **{"id": uid.rjust(36, "0"), "study_instance_uid": study_uid, "study_revision": 1, "bundle": uid[-64:]},
            **{"revision": 1, "state": "done", "priority": "routine", "destinations": [], "attempts": 1},
            **{"available_at": NOON, "created_at": NOON, "requested_by": "dispatch"},
        )
    )
    row = {"job_id": uid.rjust(36, "0"), "kind": "seg", "ordinal": 0, "variant": "", "media_type": "application/dicom"}
    row |= {
        "study_instance_uid": study_uid,
        "series_instance_uid": f"{uid}.0",
        "sop_class_uid": SEG,
        "digest": "0" * 64,
    }
    row |= {"sop_instance_uid": uid, "path": f"results/{uid}.dcm", "size_bytes": 7, "created_at": NOON}
    row |= {"modality": "SEG", "series_number": 90003, "series_description": "ours", "number_of_frames": 9}
    connection.execute(sa.insert(artefact).values(**row | values))


def reject(connection: sa.Connection, study_uid: str, series_uid: str, uid: str) -> None:
    """Reject an instance."""
    row = {"sop_instance_uid": uid, "study_instance_uid": study_uid, "series_instance_uid": series_uid}
    connection.execute(sa.insert(rejection).values(**row, code="113001", requested_by="web", rejected_at=NOON))


@pytest.fixture
def filed(store: Store) -> Store:
    """Give a store with two studies: one with two CT series, a result and its way back, one all rejected."""
    with store.write() as connection:
        add_study(connection, "1.1", patient_name="Doe^Jane", patient_id="P1", study_date="20260301")
        add_series(connection, "1.1", "1.1.2", series_number=2, scheduled_step_id="S1", requested_procedure_id="R1")
        add_series(connection, "1.1", "1.1.1", series_number=1, modality="PT", body_part="CHEST")
        for uid, series_uid, number in (("9.1", "1.1.2", 1), ("9.2", "1.1.2", 10), ("9.3", "1.1.2", 2)):
            add_instance(connection, "1.1", series_uid, uid, instance_number=number, rows=512)
        add_instance(connection, "1.1", "1.1.1", "9.4", is_current=True)
        add_instance(connection, "1.1", "1.1.1", "9.5", is_current=False)
        add_result(connection, "1.1", "2.25.1", instance_number=1)
        add_series(connection, "1.1", "2.25.1.0", modality="SEG")
        add_instance(connection, "1.1", "2.25.1.0", "2.25.1", digest="back")
        add_study(connection, "1.2", patient_name="Roe^Max", patient_id="P2", study_date="20260302")
        add_series(connection, "1.2", "1.2.1")
        add_instance(connection, "1.2", "1.2.1", "8.1")
        reject(connection, "1.2", "1.2.1", "8.1")
    return store


def test_objects_are_located_once_and_in_order(filed: Store) -> None:
    """By series and instance number; a result that came back once, as ours; superseded and rejected ones not."""
    with filed.read() as connection:
        of_study = locate(connection, study_instance_uid="1.1")
        of_series = locate(connection, study_instance_uid="1.1", series_instance_uid="1.1.2")
        rejected = locate(connection, sop_instance_uid="8.1")
        several = locate_many(connection, ["2.25.1", "9.4", "9.4", "7.7", "8.1"])

    assert [one.sop_instance_uid for one in of_study] == ["9.4", "9.1", "9.3", "9.2", "2.25.1"]
    assert (of_study[-1].is_result, of_study[-1].modality, of_study[-1].path) == (True, "SEG", "results/2.25.1.dcm")
    assert (of_study[-1].transfer_syntax_uid, of_study[-1].number_of_frames) == ("1.2.840.10008.1.2.1", 9)
    assert [one.sop_instance_uid for one in of_series] == ["9.1", "9.3", "9.2"]
    assert rejected == []
    assert [one.sop_instance_uid for one in several] == ["9.4", "2.25.1"]


def test_locating_needs_a_uid(local_store: Store) -> None:
    """Nobody gets everything by leaving all out."""
    with local_store.read() as connection, pytest.raises(ValueError, match="needs a UID"):
        locate(connection)


def test_counts_hold_results_and_no_rejected_ones(filed: Store) -> None:
    """Counts, modalities and SOP classes are those of what is shown; a study of which nothing is shown is none."""
    with filed.read() as connection:
        (study,) = find(connection, Query("STUDY"))
        series = find(connection, Query("SERIES", parents={STUDY_UID: "1.1"}))

    assert study[TAGS["ModalitiesInStudy"]] == ("CT", "PT", "SEG")
    assert study[TAGS["SOPClassesInStudy"]] == (CT, SEG)
    assert study[TAGS["NumberOfStudyRelatedSeries"]] == 3
    assert study[TAGS["NumberOfStudyRelatedInstances"]] == 5
    assert [one[SERIES_UID] for one in series] == ["1.1.1", "1.1.2", "2.25.1.0"]
    assert [one[TAGS["NumberOfSeriesRelatedInstances"]] for one in series] == [1, 3, 1]
    assert series[1][0x00400275] == [{TAGS["ScheduledProcedureStepID"]: "S1", TAGS["RequestedProcedureID"]: "R1"}]
    assert series[2][0x00400275] == []
    assert (series[2][TAGS["SeriesDescription"]], series[2][TAGS["PatientID"]]) == ("ours", "P1")


LEVEL_KEYS: list[tuple[Any, Mapping[int, str], int]] = [
    ("SERIES", keys(Modality="SEG"), 1),
    ("SERIES", keys(Modality="P?"), 1),
    ("SERIES", keys(SeriesNumber="90003"), 1),
    ("SERIES", keys(BodyPartExamined="CHEST"), 1),
    ("SERIES", keys(ScheduledProcedureStepID="S*", RequestedProcedureID="R1"), 1),
    ("SERIES", keys(PatientName="doe*"), 3),
    ("SERIES", keys(PatientName="roe*"), 0),
    ("SERIES", keys(ModalitiesInStudy="SEG", Modality="CT"), 1),
    ("STUDY", keys(ModalitiesInStudy="SEG\\XX"), 1),
    ("STUDY", keys(ModalitiesInStudy="MR"), 0),
    ("STUDY", keys(SOPClassesInStudy=SEG), 1),
    ("STUDY", keys(SOPClassesInStudy="1.2.3"), 0),
    ("STUDY", keys(StudyInstanceUID="1.1,1.2,1.3"), 1),
    ("STUDY", keys(Modality="MR"), 1),  # no key of this level: matches everything
    ("IMAGE", keys(SOPClassUID=SEG), 1),
    ("IMAGE", keys(InstanceNumber="10"), 1),
    ("IMAGE", keys(Rows="512"), 3),
    ("IMAGE", keys(NumberOfFrames="9"), 1),
    ("IMAGE", keys(SeriesInstanceUID="1.1.2"), 3),
    ("IMAGE", keys(SOPInstanceUID="9.5"), 0),
    ("PATIENT", keys(PatientID="P*"), 1),
    ("PATIENT", keys(PatientID="p*"), 0),
]


def test_keys_of_each_level(filed: Store) -> None:
    """Each level matches its own keys and those above, results among what is matched."""
    with filed.read() as connection:
        found = [(level, asked, len(find(connection, Query(level, asked)))) for level, asked, _ in LEVEL_KEYS]

    assert found == LEVEL_KEYS


def test_a_patient_is_one_whatever_the_studies(store: Store) -> None:
    """Studies are grouped by patient id and issuer, those without an id by name."""
    with store.write() as connection:
        people = (("P1", "A", "Doe"), ("P1", "A", "Doe"), ("P1", "B", "Doe"), ("", "", "Ann"), ("", "", "Bob"))
        for number, (patient_id, issuer, name) in enumerate(people):
            uid = f"1.{number}"
            add_study(connection, uid, patient_id=patient_id, patient_id_issuer=issuer, patient_name=name)
            add_series(connection, uid, f"{uid}.1")
            add_instance(connection, uid, f"{uid}.1", f"{uid}.1.1")

    with store.read() as connection:
        found = find(connection, Query("PATIENT"))

    shown = [(one[TAGS["PatientName"]], one[TAGS["NumberOfPatientRelatedStudies"]]) for one in found]
    assert shown == [("Ann", 1), ("Bob", 1), ("Doe", 2), ("Doe", 1)]


@pytest.mark.parametrize("level", ["STUDY", "SERIES", "IMAGE"])
def test_pages_fit_together(store: Store, level: Any) -> None:
    """Pages of any length, put together, are the whole list: nothing twice, nothing left out."""
    with store.write() as connection:
        for number in range(13):
            uid = f"1.{number}"
            add_study(connection, uid, study_date=DATES[number % 3], study_time=TIMES[number % 2])
            for part in ("1", "2"):
                add_series(connection, uid, f"{uid}.{part}")
                add_instance(connection, uid, f"{uid}.{part}", f"{uid}.{part}.1", instance_number=None)
            add_result(connection, uid, f"2.25.{number}")

    with store.read() as connection:
        whole = find(connection, Query(level))
        pages = [find(connection, Query(level, limit=5, offset=start)) for start in range(0, len(whole) + 5, 5)]

    assert len(whole) == {"STUDY": 13, "SERIES": 39, "IMAGE": 39}[level]
    assert list(itertools.chain(*pages)) == whole
    if level == "STUDY":
        assert [one[TAGS["StudyDate"]] for one in whole] == sorted(
            (one[TAGS["StudyDate"]] for one in whole), reverse=True
        )


def _population() -> list[dict[str, Any]]:
    """Return studies of names, texts, dates and times that look alike."""
    made = random.Random(6)
    rows = []
    for number in range(70):
        groups = [
            "^".join(made.choice(NAME_PARTS) for _ in range(made.randint(1, 3))) for _ in range(made.randint(1, 2))
        ]
        rows.append(
            {
                "uid": f"1.2.{number}",
                "patient_name": "=".join(groups),
                "patient_id": made.choice(TEXTS),
                "study_date": made.choice(DATES),
                "study_time": made.choice(TIMES),
                "modalities": {made.choice(MODALITIES) for _ in range(made.randint(1, 2))},
            }
        )
    return rows


POPULATION = _population()


@pytest.fixture
def populated(store: Store) -> Store:
    """Give a store with the population."""
    with store.write() as connection:
        for row in POPULATION:
            uid, modalities = row["uid"], sorted(row["modalities"])
            add_study(connection, uid, **{name: row[name] for name in row.keys() - {"uid", "modalities"}})
            for number, modality in enumerate(modalities):
                if modality == "SEG":
                    add_result(connection, uid, f"2.25.{uid}")
                else:
                    add_series(connection, uid, f"{uid}.{number}", modality)
                    add_instance(connection, uid, f"{uid}.{number}", f"{uid}.{number}.1")
    return store


def _fits(pattern: str, value: str) -> bool:
    parts = {"*": ".*", "?": "."}
    return re.fullmatch("".join(parts.get(each) or re.escape(each) for each in pattern), value, re.DOTALL) is not None


def _fold(text: str) -> str:
    spread = unicodedata.normalize("NFD", text.lower())
    return "".join(each for each in spread if not unicodedata.combining(each))


def _groups(name: str) -> list[str]:
    return ["^".join(part.strip() for part in group.split("^")).rstrip("^") for group in _fold(name).split("=")]


def _person_fits(pattern: str, name: str, *, is_fuzzy: bool) -> bool:
    """Match a pattern against every run of component groups; fuzzily also each word against the words."""
    groups = _groups(name)
    while groups and not groups[-1]:
        groups.pop()
    runs = ["=".join(groups[low:high]) for low in range(len(groups)) for high in range(low + 1, len(groups) + 1)]
    asked = ["=".join(_groups(re.sub(r"\*+", "*", pattern))).strip("=")]
    while asked[-1].endswith("^*"):
        asked.append(asked[-1][:-2])
    if any(each.strip("*") == "" for each in asked):
        return True
    if any(_fits(each, run) for each in asked for run in runs):
        return True
    words = [word for word in re.split(r"[\s^=,*?-]+", asked[0]) if word]
    known = [word for word in re.split(r"[=^ -]", "=".join(groups)) if word]
    return is_fuzzy and bool(words) and all(any(each.startswith(word) for each in known) for word in words)


def _time_fits(asked: str, stored: str) -> bool:
    if not stored:
        return False
    low, separator, high = asked.partition("-")
    clock = _clock(stored, "0")
    is_after = not low or clock >= _clock(low, "0")
    return is_after and (not (high if separator else low) or clock <= _clock(high if separator else low, "9"))


def _clock(text: str, digit: str) -> str:
    digits, _, fraction = text.replace(":", "").partition(".")
    return digits + ("000000" if digit == "0" else "xx5959")[len(digits) :] + "." + fraction.ljust(6, digit)


def _reference(row: Mapping[str, Any], asked: Mapping[str, str], *, is_fuzzy: bool) -> bool:
    """Say in plain Python whether a study matches."""
    date, time = asked.get("StudyDate", ""), asked.get("StudyTime", "")
    if "-" in date and "-" in time:
        (low_date, high_date), (low_time, high_time) = date.split("-"), time.split("-")
        moment = row["study_date"] + _clock(row["study_time"], "0")
        low = low_date + (_clock(low_time, "0") if low_time else "")
        high = high_date + (_clock(high_time, "9") if high_time else "~")
        is_in_time = bool(row["study_date"]) and (not low_date or moment >= low) and (not high_date or moment <= high)
    else:
        low_date, separator, high_date = date.partition("-")
        ends = (low_date, high_date if separator else low_date)
        is_in_time = not date or bool(
            row["study_date"] and ends[0] <= row["study_date"] and (not ends[1] or row["study_date"] <= ends[1])
        )
        is_in_time = is_in_time and (not time or _time_fits(time, row["study_time"]))
    patient_id, modality = asked.get("PatientID", "").strip(), asked.get("ModalitiesInStudy", "")
    return (
        is_in_time
        and _person_fits(asked.get("PatientName", ""), row["patient_name"], is_fuzzy=is_fuzzy)
        and (not patient_id or any(_fits(each, row["patient_id"]) for each in _alternatives(patient_id)))
        and (not modality or any(_fits(each, one) for each in modality.split(",") for one in row["modalities"]))
    )


def _alternatives(value: str) -> list[str]:
    return [each.strip() for each in value.split("\\") if each.strip()] or [value]


_wild = st.sampled_from(["*", "?", "", "an", "^", "=", " "])
_names = st.lists(st.one_of(st.sampled_from(NAME_PARTS), _wild), max_size=5).map("".join)
_ids = st.lists(st.one_of(st.sampled_from(TEXTS), st.sampled_from(["*", "?", "A", "1"])), max_size=3).map("".join)
_ends = st.tuples(st.sampled_from(DATES), st.sampled_from(DATES)).filter(any).map("-".join)
_clocks = st.sampled_from(["09", "0930", "093000", "093000.5", "10", "235959.999999"])
_spans = st.tuples(st.one_of(st.just(""), _clocks), st.one_of(st.just(""), _clocks)).filter(any).map("-".join)
_asked = st.fixed_dictionaries(
    {},
    optional={
        "PatientName": _names,
        "PatientID": _ids,
        "StudyDate": st.one_of(_ends, st.sampled_from(DATES)),
        "StudyTime": st.one_of(_spans, _clocks),
        "ModalitiesInStudy": st.sampled_from(["CT", "MR", "SEG", "C?", "S*", "CT,SEG", "XX", "*"]),
    },
)


@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(asked=_asked, is_fuzzy=st.booleans())
def test_matching_is_that_of_a_plain_matcher(populated: Store, asked: dict[str, str], is_fuzzy: bool) -> None:
    """Whatever is asked, the database finds the studies that the plain matcher finds, narrowed first or not."""
    expected = {row["uid"] for row in POPULATION if _reference(row, asked, is_fuzzy=is_fuzzy)}
    query = Query("STUDY", keys(**asked), is_fuzzy=is_fuzzy, wanted=frozenset())

    with populated.read() as connection:
        found = find(connection, query)
        among_all = connection.execute(statement(query, connection.dialect.name), bounds(query)).all()

    assert {one[STUDY_UID] for one in found} == expected
    assert {row.study_instance_uid for row in among_all} == expected


def test_the_longest_name_is_kept_and_found(store: Store) -> None:
    """A name of 1024 characters of four bytes each, no two alike, fits into the index of names of each database."""
    name = "".join(chr(0x20000 + number) for number in range(1024))
    with store.write() as connection:
        add_study(connection, "1.2.3", patient_name=name)
        add_series(connection, "1.2.3", "1.2.3.1")
        add_instance(connection, "1.2.3", "1.2.3.1", "1.2.3.1.1")

    with store.read() as connection:
        found = find(connection, Query("STUDY", {0x00100010: f"{name[:200]}*"}))

    assert [match[0x0020000D] for match in found] == ["1.2.3"]


@pytest.mark.parametrize("value", ["\\".join("ab" * 50), "a" + "^*" * 510, "a " * 510])
def test_the_broadest_question_about_a_name_is_answered(store: Store, value: str) -> None:
    """As many values, components or words as are taken are not too many for a database, word by word or not."""
    with store.read() as connection:
        for is_fuzzy in (False, True):
            assert find(connection, Query("STUDY", {0x00100010: value}, is_fuzzy=is_fuzzy)) == []


def test_what_is_rare_is_looked_for_among_few(populated: Store) -> None:
    """A name or modality of few studies names them; one of more than a bound, and other keys, name none."""
    fitting = [row["uid"] for row in POPULATION if "MR" in row["modalities"]]
    asked = Query("STUDY", keys(ModalitiesInStudy="MR"))

    with populated.read() as connection:
        few = few_studies(connection, asked)
        too_many = few_studies(connection, asked, most=len(fitting) - 1)
        neither = few_studies(connection, Query("STUDY", keys(PatientID="A1", PatientName="*")))

    assert few == sorted(fitting)
    assert (too_many, neither) == (None, None)
