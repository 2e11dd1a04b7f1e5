"""A person's word becomes a revision: rows, files, FHIR and deliveries, on SQLite and PostgreSQL."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from gateway.config import Destination
from gateway.errors import ConflictError
from gateway.report.rejection_note import QUALITY
from gateway.store import Store, deliveries, jobs
from gateway.store.schema import downgrade, upgrade
from gateway.store.tables import finding, job, study
from gateway.store.urgency import raise_to_stat
from gateway.store.verifications import NOTE, standing_jobs
from gateway.verification.verify import Verified
from tests.unit.report.outcomes import write_xray, xray_findings
from tests.verifying import BUNDLE, OUTCOME, objects_of, resources, take_in_all, told, verdict, verifier, work
from tests.working import add_job, job_of

PACS = Destination(name="PACS", address="PACS@127.0.0.1:104")
MAPS = Destination(name="MAPS", address="MAPS@127.0.0.1:104", seg_encoding="LABELMAP")
VIRAL = {"class:0:fine": "viral"}
NO_LEFT_LUNG = {"remove:0:1": "1"}


@pytest.fixture
def study_uid(store: Store, tmp_path: Path) -> str:
    """Give a study of one made X-ray."""
    folder = tmp_path / "source"
    folder.mkdir()
    return take_in_all(store, write_xray(folder))


@pytest.fixture
def job_id(store: Store, study_uid: str) -> str:
    """Give the first revision of its results."""
    return work(store, study_uid, OUTCOME, [PACS])


def _verify(store: Store, job_id: str, action: str, fields: dict[str, str] | None = None) -> Verified:
    return verifier(store).verify(verdict(job_id, action, fields))


def _current(store: Store) -> list[tuple[str, str, float, bool]]:
    query = sa.select(finding.c.job_id, finding.c.name, finding.c.probability, finding.c.is_positive)
    with store.read() as connection:
        rows = connection.execute(query.where(finding.c.is_current).order_by(finding.c.id))
        return [tuple(row) for row in rows]


def _suspicion(store: Store) -> float | None:
    with store.read() as connection:
        return connection.scalar(sa.select(study.c.suspicion))


def _deliveries(store: Store) -> list[tuple[str, str]]:
    """Return job and state of each delivery, the oldest first."""
    with store.read() as connection:
        return [(row.job_id, row.state) for row in reversed(deliveries.list_deliveries(connection))]


def _report(store: Store) -> dict[str, Any]:
    (report,) = resources(store, "DiagnosticReport")
    return report


def _observations(store: Store) -> list[dict[str, Any]]:
    return resources(store, "Observation")


def test_accepting_makes_a_final_revision(store: Store, job_id: str) -> None:
    """A done job with verified reports, a final report, and a delivery that does not take the first one's place."""
    made = _verify(store, job_id, "accept", {"comment": "As I see it"})

    row = job_of(store, made.job_id)
    assert (row.state, row.revision, row.requested_by, row.bundle) == ("done", 2, "verification", BUNDLE)
    assert row.verification is not None
    assert (row.verification["action"], row.verification["observer"]) == ("accept", "Curie^Marie")
    assert row.summary["outcomes"] == job_of(store, job_id).summary["outcomes"]
    documents = objects_of(store, made.job_id)
    assert set(documents) == {"sr-findings", "sr-measurements"}
    assert {each.VerificationFlag for each in documents.values()} == {"VERIFIED"}
    assert _report(store)["status"] == "final"
    assert _report(store)["resultsInterpreter"] == [{"type": "Practitioner", "display": "Marie Curie"}]
    assert "verified and accepted by Marie Curie" in str(_report(store)["conclusion"])
    assert "As I see it" in str(_report(store)["conclusion"])
    assert {each["status"] for each in resources(store, "Observation")} == {"final"}
    assert _deliveries(store) == [(job_id, "waiting"), (made.job_id, "waiting")]
    with store.write() as connection:
        first = deliveries.claim(connection, "PACS", datetime.now(UTC), 30)
    assert first is not None
    assert first.job_id == job_id


def test_rejecting_withdraws_everything(store: Store, job_id: str) -> None:
    """Entered in error; a note for all objects; nothing current, no suspicion; what was not sent yet is not sent."""
    named = {str(each.SOPInstanceUID) for each in objects_of(store, job_id).values()}

    made = _verify(store, job_id, "reject", {"comment": "Motion"})

    documents = objects_of(store, made.job_id)
    assert set(documents) == {NOTE}
    title = documents[NOTE].ConceptNameCodeSequence[0]
    assert (title.CodeValue, title.CodeMeaning) == (QUALITY.value, QUALITY.meaning)
    assert documents[NOTE].ContentSequence[0].TextValue == "Rejected by Marie Curie, Institut du Radium: Motion"
    assert {
        str(item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID) for item in documents[NOTE].ContentSequence[1:]
    } == named
    assert _report(store)["status"] == "entered-in-error"
    assert "Pneumonia" not in str(_report(store)["conclusion"])
    assert "conclusionCode" not in _report(store)
    assert {each["status"] for each in _observations(store)} == {"entered-in-error"}
    assert _current(store) == []
    assert _suspicion(store) is None
    assert _deliveries(store) == [(job_id, "cancelled"), (made.job_id, "waiting")]


@pytest.mark.parametrize(
    ("action", "fields", "suspicion"),
    [("accept", {}, 0.9), ("correct", {"class:0:coarse": "normal"}, 0.0), ("correct", VIRAL, 0.9)],
)
def test_the_suspicion_is_the_algorithms_until_a_person_says_normal(
    store: Store, job_id: str, action: str, fields: dict[str, str], suspicion: float
) -> None:
    """So the worklist's order follows what is known."""
    assert _suspicion(store) == 0.9

    _verify(store, job_id, action, fields)

    assert _suspicion(store) == suspicion


def test_the_suspicion_of_an_algorithm_is_that_of_the_positive_class(store: Store, study_uid: str) -> None:
    """A study answered 'normal' with 40 % for pneumonia stands before one with 3 %; where nothing asks, it has none."""
    coarse, _ = told(xray_findings()).findings
    normal, pneumonia = coarse.alternatives
    normal, pneumonia = replace(normal, probability=0.6), replace(pneumonia, probability=0.4)
    quiet = replace(OUTCOME, findings=(replace(coarse, answer=normal, alternatives=(normal, pneumonia)),))

    work(store, study_uid, quiet)
    assert _suspicion(store) == 0.4

    work(store, study_uid, replace(quiet, findings=()))
    assert _suspicion(store) is None


def test_a_form_sent_twice_makes_one_revision(store: Store, job_id: str) -> None:
    """The second answer names the job that the first one made."""
    first = _verify(store, job_id, "accept")
    second = _verify(store, job_id, "accept")

    assert (second.job_id, first.is_new, second.is_new) == (first.job_id, True, False)
    with store.read() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(job)) == 2


def test_of_two_persons_at_once_one_istold(store: Store, job_id: str) -> None:
    """One revision, however the two meet; the other one learns who was faster."""
    names = [f"Person{number} Some" for number in range(4)]
    ready, made, refused = threading.Barrier(len(names)), [], []

    def say(name: str) -> None:
        ready.wait()
        try:
            made.append(_verify(store, job_id, "accept", {"observer": name}))
        except ConflictError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=say, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert (len(made), len(refused)) == (1, 3)
    assert all("accepted this result on" in sentence for sentence in refused)
    with store.read() as connection:
        assert connection.scalar(sa.select(sa.func.max(job.c.revision))) == 2
        assert connection.scalar(sa.select(sa.func.count()).select_from(finding).where(finding.c.is_current)) == 2


def test_what_is_about_to_be_replaced_is_not_verified(store: Store, job_id: str, study_uid: str) -> None:
    """A reprocess waits: its result would hide the person's word."""
    add_job(store, study_uid, bundle=BUNDLE)

    with pytest.raises(ConflictError, match="revision 2 is queued and will replace"):
        _verify(store, job_id, "accept")


def test_a_result_of_an_earlier_version_can_be_verified(store: Store, job_id: str) -> None:
    """Its summary tells neither units in words nor what is positive; the order of the classes stands in."""
    with store.write() as connection:
        row = connection.execute(sa.select(job.c.summary, job.c.algorithm)).one()
        summary, algorithm = row.summary, dict(row.algorithm)
        del algorithm["family"]
        for each in summary["outcomes"][0]["findings"]:
            del each["is_positive"]
            for one in each["alternatives"]:
                del one["is_positive"], one["parent"]
        for segment in summary["outcomes"][0]["segments"]:
            del segment["category"]
            for measurement in segment["measurements"]:
                del measurement["unit_meaning"]
        connection.execute(sa.update(job).values(summary=summary, algorithm=algorithm))

    _verify(store, job_id, "correct", {"class:0:coarse": "normal"})

    assert _current(store)[0][1:] == ("normal", 0.1, False)
    assert _suspicion(store) == 0.0


def test_resending_sends_what_stands(store: Store, job_id: str, study_uid: str) -> None:
    """Both revisions after an acceptance, the older first; after a rejection the note alone."""
    made = _verify(store, job_id, "accept")
    now = datetime.now(UTC)
    with store.write() as connection:
        assert standing_jobs(connection, study_uid) == [job_id, made.job_id]
        assert deliveries.resend(connection, [job_id, made.job_id], now) == 0
        for _ in range(2):
            claimed = deliveries.claim(connection, "PACS", now, 30)
            assert claimed is not None
            deliveries.finish(connection, claimed, now)
        assert deliveries.resend(connection, [job_id, made.job_id], now, "OTHER") == 0
        assert deliveries.resend(connection, [job_id, made.job_id], now, "PACS") == 2
        first = deliveries.claim(connection, "PACS", now, 30)
        assert first is not None
        assert first.job_id == job_id

    rejected = _verify(store, made.job_id, "reject")
    with store.read() as connection:
        assert standing_jobs(connection, study_uid) == [rejected.job_id]


def _send(store: Store) -> str | None:
    """Deliver the oldest delivery that is due; return its job."""
    now = datetime.now(UTC)
    with store.write() as connection:
        claimed = deliveries.claim(connection, "PACS", now, 30)
        if claimed is None:
            return None
        deliveries.finish(connection, claimed, now)
    return claimed.job_id


@pytest.mark.parametrize(("action", "fields"), [("reject", {}), ("correct", NO_LEFT_LUNG)])
def test_a_withdrawal_is_sent_though_a_newer_result_is_there(
    store: Store, job_id: str, study_uid: str, action: str, fields: dict[str, str]
) -> None:
    """Whoever got the objects has to learn that they do not count; what waits without a note is replaced."""
    assert _send(store) == job_id
    noted = _verify(store, job_id, action, fields)
    third = work(store, study_uid, OUTCOME, [PACS])
    accepted = _verify(store, third, "accept")
    fifth = work(store, study_uid, OUTCOME, [PACS])

    sent = [_send(store) for _ in range(3)]

    assert sent == [noted.job_id, fifth, None]
    assert dict(_deliveries(store))[third] == dict(_deliveries(store))[accepted.job_id] == "cancelled"


def test_what_was_being_sent_when_it_was_rejected_is_not_tried_again(store: Store, job_id: str, study_uid: str) -> None:
    """Neither by itself, nor when all that failed is tried again; the note of an earlier rejection is."""
    first = _verify(store, job_id, "reject")
    second = work(store, study_uid, OUTCOME, [PACS])
    assert _send(store) == first.job_id
    accepted = _verify(store, second, "accept")
    with store.write() as connection:
        now = datetime.now(UTC)
        deliveries.resend(connection, [first.job_id], now + timedelta(seconds=1))
        refused = deliveries.claim(connection, "PACS", now, 30)
        assert refused is not None and refused.job_id == second
        deliveries.fail(connection, refused, now, "refused")
        under_way = deliveries.claim(connection, "PACS", now, 30)
        assert under_way is not None and under_way.job_id == accepted.job_id
    rejected = _verify(store, accepted.job_id, "reject")

    with store.write() as connection:
        deliveries.put_back(connection, under_way, datetime.now(UTC), "away")
        assert deliveries.retry_failed(connection, datetime.now(UTC)) == 1
        later = datetime.now(UTC) + timedelta(seconds=5)
        sent = []
        while (claimed := deliveries.claim(connection, "PACS", later, 30)) is not None:
            sent.append(claimed.job_id)
            deliveries.finish(connection, claimed, later)

    assert sorted(sent) == sorted([first.job_id, rejected.job_id])
    assert dict(_deliveries(store))[second] == dict(_deliveries(store))[accepted.job_id] == "cancelled"


def test_a_study_raised_to_stat_takes_its_waiting_jobs_along(store: Store, study_uid: str) -> None:
    """A message not yet published changes its queue; one that was gets a sister; what runs is left."""
    now = datetime.now(UTC)
    waiting, published, running = (add_job(store, study_uid, bundle=name) for name in ("a", "b", "c"))
    with store.write() as connection:
        connection.execute(sa.text("UPDATE outbox SET published_at = created_at WHERE job_id = :id"), {"id": published})
        assert jobs.claim(connection, running, "w1", now, 30) is not None

    with store.write() as connection:
        assert raise_to_stat(connection, study_uid, now) == 2
        assert raise_to_stat(connection, study_uid, now + timedelta(seconds=1)) == 0
        messages = connection.execute(sa.text("SELECT job_id, priority, published_at FROM outbox ORDER BY id")).all()
        assert connection.scalar(sa.select(study.c.priority)) == "stat"
    due = [(row.job_id, row.priority) for row in messages if row.published_at is None and row.job_id != running]
    assert due == [(waiting, "stat"), (published, "stat")]
    assert job_of(store, running).priority == "routine"


def test_results_of_before_are_found_after_the_upgrade(store: Store, job_id: str, study_uid: str) -> None:
    """Findings and suspicion of the newest results are filled in from their summaries."""
    second = work(store, study_uid, OUTCOME)
    before = _current(store)

    downgrade(store, "0001")
    upgrade(store)

    assert _current(store) == before
    assert {row[0] for row in before} == {second}
    assert _suspicion(store) == 0.9
