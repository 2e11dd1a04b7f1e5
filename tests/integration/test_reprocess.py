"""Studies are processed anew, by their UIDs, their modality or their time; on both databases."""

from datetime import timedelta

import pytest

from gateway.dispatcher import Router
from gateway.errors import NotFoundError
from gateway.reprocess import Reprocessed, Request, reprocess
from gateway.store import Store, jobs, studies
from tests.dispatching import CT, MR, finish, list_jobs, receive
from tests.stores import NOON


def again(store: Store, request: Request) -> list[Reprocessed]:
    """Reprocess at one o'clock."""
    count, each = reprocess(store, Router(store, (), (CT, MR), ("PACS",)), request, NOON + timedelta(hours=1))
    done = list(each)
    assert len(done) == count
    return done


def test_reprocessing_makes_the_next_revision_of_what_gave_a_result(store: Store) -> None:
    """The bundle that ran before, else what routing says; never a study that is still arriving."""
    receive(store, "1.1", state="routed")
    receive(store, "1.2", modality="MR", state="routed")
    receive(store, "1.3")
    receive(store, "1.4", modality="US", state="unrouted")
    with store.write() as connection:
        first = jobs.create_job(
            connection,
            study_instance_uid="1.1",
            study_revision=1,
            bundle="mr-hippocampus",
            priority="routine",
            destinations=("OLD",),
            requested_by="dispatch",
            now=NOON,
        )
    finish(store, first)
    outcomes = {one.study_instance_uid: one for one in again(store, Request(studies.StudyFilter(), priority="stat"))}
    made = {row.study_instance_uid: row for row in list_jobs(store) if row.id != first}

    assert set(made) == {"1.1", "1.2"}
    assert (made["1.1"].bundle, made["1.1"].revision, made["1.1"].destinations) == ("mr-hippocampus", 2, ["OLD"])
    assert (made["1.2"].bundle, made["1.2"].priority, made["1.2"].requested_by) == (
        "mr-hippocampus",
        "stat",
        "reprocess",
    )
    assert "still arriving" in str(outcomes["1.3"].reason)
    assert "no bundle takes" in str(outcomes["1.4"].reason)


def test_reprocessing_takes_a_list_a_modality_or_a_time(store: Store) -> None:
    """And says which UID or bundle it does not know before it begins."""
    receive(store, "1.1", state="routed")
    receive(store, "1.2", modality="MR", state="routed", last_received_at=NOON + timedelta(minutes=1))

    def uids(**which: object) -> list[str]:
        request = Request(studies.StudyFilter(**which), bundle="ct-lung")  # type: ignore[arg-type] # a test's shorthand
        return [one.study_instance_uid for one in again(store, request)]

    assert uids(uids=("1.1",)) == ["1.1"]
    assert uids(modality="MR") == ["1.2"]
    assert uids(received_since=NOON + timedelta(seconds=30)) == ["1.2"]
    assert "1.2" not in uids(received_before=NOON + timedelta(seconds=30))
    with pytest.raises(NotFoundError, match="no study 9"):
        uids(uids=("1.1", "9"))
    with pytest.raises(NotFoundError, match="no bundle us-thyroid; installed: ct-lung, mr-hippocampus"):
        again(store, Request(studies.StudyFilter(), bundle="us-thyroid"))
