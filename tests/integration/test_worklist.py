"""The worklist in the database: order, filters, priors, and the mark that tells of a change."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from gateway.store import Store
from gateway.store.tables import artefact, delivery, job, study
from gateway.store.worklist import (
    PRIORS_LIMIT,
    WORK_STATES,
    WorklistFilter,
    change_mark,
    count_priors,
    count_worklist,
    known_findings,
    known_modalities,
    list_priors,
    list_worklist,
    modalities_of,
    newest_jobs,
)
from gateway.web.worklist import LAST_PAGE, parse_address
from tests.integration.worklist_rows import add_finding, add_images, add_job, not_evaluable, verified
from tests.stores import NOON, add_study

MINUTE = timedelta(minutes=1)
EVERYTHING = ("name", "id", "birth", "accession")


def uids(store: Store, which: WorklistFilter | None = None, **paging: int) -> list[str]:
    """Return the UIDs that a filter lists, and see that as many are counted."""
    which = which or WorklistFilter()
    with store.read() as connection:
        listed = [
            each.study.study_instance_uid for each in list_worklist(connection, which, **{"limit": 100, **paging})
        ]
        if not paging:
            assert count_worklist(connection, which, 1000) == len(listed)
    return listed


def states(store: Store) -> None:
    """Put in a study in each state, its UID being `1.` and the state."""
    jobs: dict[str, dict[str, Any]] = {
        "waiting": {"state": "queued"},
        "running": {"state": "running"},
        "failed": {"state": "dead", "reason": "no answer"},
        "not-evaluable": {"reason": "not evaluable: x", "summary": not_evaluable()},
        "preliminary": {},
        "verified": {"verification": verified()},
    }
    with store.write() as connection:
        add_images(connection, "1.receiving", state="receiving")
        add_images(connection, "1.unrouted", state="unrouted", state_reason="no bundle takes it")
        for name, values in jobs.items():
            add_images(connection, f"1.{name}")
            add_job(connection, f"1.{name}", **values)


def test_urgency_orders_the_list(store: Store) -> None:
    """STAT first, then suspicion, then the latest received; a study without findings comes after those with."""
    with store.write() as connection:
        add_study(connection, "1.old", last_received_at=NOON)
        add_study(connection, "1.new", last_received_at=NOON + MINUTE)
        add_study(connection, "1.low", suspicion=0.2)
        add_study(connection, "1.high", suspicion=0.9)
        add_study(connection, "1.stat", priority="stat")
        add_study(connection, "1.stat-suspicious", priority="stat", suspicion=0.5)

    assert uids(store) == ["1.stat-suspicious", "1.stat", "1.high", "1.low", "1.new", "1.old"]
    assert uids(store, limit=2, offset=1) == ["1.stat", "1.high"]
    assert [uid for offset in range(7) for uid in uids(store, limit=1, offset=offset)] == uids(store)


def test_every_state_can_be_asked_for(store: Store) -> None:
    """Each state gives its own study and no other."""
    states(store)

    assert {state: uids(store, WorklistFilter(state=state)) for state in WORK_STATES} == {
        state: [f"1.{state}"] for state in WORK_STATES
    }


def test_the_newest_revision_decides(store: Store) -> None:
    """A study that was verified and is processed anew waits again; another bundle's job does not matter."""
    with store.write() as connection:
        add_images(connection, "1.2")
        add_job(connection, "1.2", verification=verified())
        add_job(connection, "1.2", revision=2, state="queued")
        add_job(connection, "1.2", bundle="ct-lung", state="dead")

    assert uids(store, WorklistFilter(state="waiting")) == ["1.2"]
    assert uids(store, WorklistFilter(state="failed")) == ["1.2"]
    assert uids(store, WorklistFilter(state="verified")) == []
    with store.read() as connection:
        found = newest_jobs(connection, ["1.2"])["1.2"]
    assert [(each.bundle, each.revision, each.state) for each in found] == [
        ("ct-lung", 1, "dead"),
        ("cxr-pneumonia", 2, "queued"),
    ]


def test_filters_by_modality_finding_and_date(store: Store) -> None:
    """Each filter takes what it says, and together they take what all of them take."""
    with store.write() as connection:
        add_images(connection, "1.dx", "DX", study_date="20260301")
        add_images(connection, "1.ct", "CT", study_date="20260310")
        add_images(connection, "1.undated", "DX")
        job_id = add_job(connection, "1.dx")
        add_finding(connection, "1.dx", job_id, "pneumonia")
        add_finding(connection, "1.ct", job_id, "viral", is_current=False)

    assert uids(store, WorklistFilter(modality="DX")) == ["1.dx", "1.undated"]
    assert uids(store, WorklistFilter(finding="pneumonia")) == ["1.dx"]
    assert uids(store, WorklistFilter(finding="viral")) == []
    assert uids(store, WorklistFilter(dated_from="20260302")) == ["1.ct"]
    assert uids(store, WorklistFilter(dated_to="20260301")) == ["1.dx"]
    assert uids(store, WorklistFilter(modality="CT", dated_from="20260310", dated_to="20260310")) == ["1.ct"]
    with store.read() as connection:
        assert known_modalities(connection) == ["CT", "DX"]
        assert known_findings(connection) == ["pneumonia"]


def test_our_own_series_are_no_modality_of_a_study(store: Store) -> None:
    """A report that came back from the PACS does not make an X-ray an SR."""
    with store.write() as connection:
        add_images(connection, "1.2", "SR")
        row = {"job_id": add_job(connection, "1.2"), "kind": "sr-findings", "ordinal": 0, "variant": ""}
        row |= {"media_type": "application/dicom", "study_instance_uid": "1.2", "series_instance_uid": "1.2.1"}
        row |= {"path": "results/a.dcm", "digest": "00", "size_bytes": 1, "created_at": NOON}
        connection.execute(sa.insert(artefact).values(**row))

    with store.read() as connection:
        assert modalities_of(connection, ["1.2"]) == {}
    assert uids(store, WorklistFilter(modality="SR")) == []


SEARCHES = {
    "doe jane": ["1.doe"],
    "Jane, Doe": ["1.doe"],
    "DOE^JANE": ["1.doe"],
    "ACC-7": ["1.doe"],
    "thorax": ["1.doe", "1.mueller"],
    "müller": ["1.mueller"],
    "MÜLLER thorax": ["1.mueller"],
    "doe knee": [],
    "50%": ["1.percent"],
    "_": ["1.percent"],
    "'; DROP TABLE study; --": [],
}


def test_every_word_has_to_stand_somewhere(store: Store) -> None:
    """Words are looked for in name, id, accession and description; wildcards of SQL mean themselves."""
    with store.write() as connection:
        add_study(connection, "1.doe", patient_name="Doe^Jane", accession_number="ACC-7", study_description="Thorax")
        add_study(connection, "1.mueller", patient_name="Müller^Anna", study_description="THORAX ap")
        add_study(connection, "1.percent", patient_id="50%_a")

    found = {text: uids(store, parse_address({"q": text}, EVERYTHING).which) for text in SEARCHES}

    assert found == SEARCHES


def test_what_is_hidden_is_not_searched(store: Store) -> None:
    """A site that hides names cannot be asked whether one is there."""
    with store.write() as connection:
        add_study(connection, "1.2", patient_name="Doe^Jane", patient_id="P-1", accession_number="A-1")

    assert uids(store, parse_address({"q": "jane"}, ("accession",)).which) == []
    assert uids(store, parse_address({"q": "A-1"}, ("accession",)).which) == ["1.2"]
    assert uids(store, parse_address({"q": "jane"}, ()).which) == []


def test_nonsense_in_the_address_is_left_out() -> None:
    """Unknown states, dates that are none, endless texts and pages do no harm."""
    query = {"state": "x' OR 1=1", "from": "yesterday", "to": "2026-13", "page": "-3", "q": "a\x00b " * 500}

    asked = parse_address(query, EVERYTHING)

    assert asked.page == 1
    assert (asked.which.state, asked.which.dated_from, asked.which.dated_to) == (None, None, None)
    assert len(asked.which.words) == 8
    assert "\x00" not in "".join(asked.which.words)
    assert parse_address({"page": "99999"}, EVERYTHING).page == LAST_PAGE
    assert asked.address(page=2).startswith("/worklist?q=")


def test_priors_are_of_the_same_patient_and_earlier(store: Store) -> None:
    """Id and issuer count, and the date; a later study or one of another hospital's patient is none."""
    with store.write() as connection:
        for uid, values in {
            "1.now": {"study_date": "20260301", "study_time": "1000"},
            "1.morning": {"study_date": "20260301", "study_time": "0800"},
            "1.before": {"study_date": "20250301"},
            "1.later": {"study_date": "20260401"},
            "1.other": {"study_date": "20250301", "patient_id_issuer": "B"},
            "1.undated": {},
        }.items():
            add_study(connection, uid, **{"patient_id": "P", "patient_id_issuer": "A", **values})
        add_study(connection, "1.nobody", study_date="20260301")
        add_study(connection, "1.nobody-before", study_date="20250301")

    with store.read() as connection:
        counts = count_priors(connection, ["1.now", "1.before", "1.nobody"])
        listed = [each.study_instance_uid for each in list_priors(connection, "1.now", 10)]
    assert (counts["1.now"], counts["1.before"], counts.get("1.nobody", 0)) == (2, 0, 0)
    assert listed == ["1.morning", "1.before"]


def test_priors_are_counted_up_to_a_limit(store: Store) -> None:
    """A test patient with thousands of studies does not slow the list down."""
    with store.write() as connection:
        for number in range(PRIORS_LIMIT + 20):
            add_study(connection, f"1.{number}", patient_id="TEST", study_date="20250101")
        add_study(connection, "2", patient_id="TEST", study_date="20260101")

    with store.read() as connection:
        assert count_priors(connection, ["2"]) == {"2": PRIORS_LIMIT}


def test_the_mark_tells_of_every_change(store: Store) -> None:
    """An arrival, a job's way, a result, a delivery and a raised priority each change the mark; a look does not."""
    marks = []

    def look() -> None:
        with store.read() as connection:
            marks.append(change_mark(connection))

    look()
    with store.write() as connection:
        add_images(connection, "1.2", state="receiving")
    look()
    with store.write() as connection:
        connection.execute(sa.update(study).values(state="routed"))
        job_id = add_job(connection, "1.2", state="queued")
    look()
    for state in ("running", "done"):
        with store.write() as connection:
            connection.execute(sa.update(job).values(state=state))
        look()
    with store.write() as connection:
        add_finding(connection, "1.2", job_id, "pneumonia")
    look()
    with store.write() as connection:
        connection.execute(sa.update(study).values(priority="stat"))
    look()
    row = {"job_id": job_id, "destination": "PACS", "attempts": 0, "available_at": NOON, "created_at": NOON}
    with store.write() as connection:
        connection.execute(sa.insert(delivery).values(**row, state="waiting"))
    look()
    with store.write() as connection:
        connection.execute(sa.update(delivery).values(state="done"))
    look()

    assert len(set(marks)) == len(marks)
    look()
    assert marks[-1] == marks[-2]


def test_ten_thousand_studies_stay_quick(sqlite_store: Store) -> None:
    """A page with its count costs little in any filter; the limit leaves room for a machine that does much else."""
    with sqlite_store.write() as connection:
        _add_many(connection, 10_000)
    slowest = {}
    for name, query in {
        "all": {},
        "deep": {"page": "190"},
        "text": {"q": "anna thorax"},
        "nothing": {"q": "zzz"},
        "modality": {"modality": "CT"},
        "preliminary": {"state": "preliminary"},
        "verified": {"state": "verified"},
        "finding": {"finding": "pneumonia"},
    }.items():
        asked = parse_address(query, EVERYTHING)
        with sqlite_store.read() as connection:
            began = time.thread_time()
            listed = list_worklist(connection, asked.which, limit=51, offset=(asked.page - 1) * 50)
            count_worklist(connection, asked.which, 10_001)
            found = [each.study.study_instance_uid for each in listed]
            newest_jobs(connection, found)
            modalities_of(connection, found)
            count_priors(connection, found)
            slowest[name] = time.thread_time() - began

    assert max(slowest.values()) < 0.25, slowest


def _add_many(connection: sa.Connection, count: int) -> None:
    """Insert studies, each with a series, a job with a summary, and a finding."""
    for number in range(10):
        add_images(connection, f"1.{number}", patient_id=f"P{number}")
        job_id = add_job(connection, f"1.{number}", summary=not_evaluable(reason="x" * 3000))
        add_finding(connection, f"1.{number}", job_id, "pneumonia", is_positive=False)
    numbers = f"WITH RECURSIVE n(i) AS (SELECT 10 UNION ALL SELECT i + 1 FROM n WHERE i < {count})"  # noqa: S608
    changes = {
        "study": {
            "study_instance_uid": "'1.' || i",
            "patient_id": "'P' || (i / 3)",
            "patient_name": "'Anna^' || i",
            "study_date": "'2026030' || (i % 9 + 1)",
            "study_description": "CASE i % 2 WHEN 0 THEN 'Thorax' ELSE 'Knee' END",
            "suspicion": "CASE i % 3 WHEN 0 THEN (i % 100) / 100.0 END",
            "last_received_at": "datetime('2026-03-02', '+' || i || ' seconds') || '.000000'",
        },
        "series": {"study_instance_uid": "'1.' || i", "series_instance_uid": "'1.' || i || '.1'"},
        "job": {
            "id": "'job-' || i",
            "study_instance_uid": "'1.' || i",
            "reason": "NULL",
            "verification": "CASE i % 2 WHEN 0 THEN '{}' END",
        },
        "finding": {"id": "i + 1000", "study_instance_uid": "'1.' || i", "job_id": "'job-' || i"},
    }
    tables = {"study": study, "job": job, **{name: study.metadata.tables[name] for name in ("series", "finding")}}
    for name, values in changes.items():
        columns = [column.name for column in tables[name].columns]
        taken = ", ".join(values.get(column, f't."{column}"') for column in columns)
        names = ", ".join(f'"{column}"' for column in columns)
        # The names are those of our own tables.
        first = f'SELECT * FROM "{name}" LIMIT 1'  # noqa: S608
        connection.exec_driver_sql(f'INSERT INTO "{name}" ({names}) {numbers} SELECT {taken} FROM n, ({first}) t')  # noqa: S608
    connection.exec_driver_sql("ANALYZE")
