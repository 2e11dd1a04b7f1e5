"""What the database does for workitems, on SQLite and PostgreSQL."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from gateway.store import Store
from gateway.store.jobs import list_jobs
from gateway.store.workitem_query import MATCHING, job_of_uid, workitem_uid
from gateway.store.workitems import find_workitems, get_workitem
from gateway.workitem.model import read_content
from gateway.workitem.refusal import Refusal, WorkitemError
from tests.upsteps import STUDY, creation, make_worklist, take_study
from tests.working import add_job

SAID = {
    "ScheduledProcedureStepStartDateTime": "2020-2090",
    "ScheduledProcedureStepModificationDateTime": "2020-",
    "PatientBirthDate": "19700505",
    "ProcedureStepState": "SCHEDULED",
    "ScheduledProcedureStepPriority": "MEDIUM",
    "ProcedureStepLabel": "thresh*",
    "WorklistLabel": "Hybrid?ed",
    "ScheduledWorkitemCodeSequence.CodeValue": "thresholding",
    "ScheduledStationNameCodeSequence.CodeValue": "HYBRIDMED-*",
    "InputReadinessState": "READY",
    "PatientName": "DOE*",
    "PatientID": "P-1",
    "IssuerOfPatientID": "",
    "PatientSex": "F",
    "AccessionNumber": "A-[1%_]",
    "StudyInstanceUID": f"9.9\\{STUDY}",
    "InputInformationSequence.StudyInstanceUID": STUDY,
    "ReferencedRequestSequence.StudyInstanceUID": STUDY,
    "ReferencedRequestSequence.AccessionNumber": "A-[*]",
    "ReferencedRequestSequence.RequestedProcedureID": "",
}
"""A value for each key that finds the one workitem there is."""


def test_every_key_finds_and_misses(store: Store) -> None:
    """Each matching key takes the workitem by its value, and not by another one."""
    take_study(store, patient_birth_date="19700505", patient_sex="F", accession_number="A-[1%_]")
    uid = workitem_uid(add_job(store, STUDY))
    said = SAID | {"SOPInstanceUID": f"1.2.3\\{uid}"}
    assert set(said) == set(MATCHING)
    other = {"ScheduledProcedureStepStartDateTime": "-2020", "PatientBirthDate": "-19700504"}
    other["ScheduledProcedureStepModificationDateTime"] = "-2020"

    for key, value in said.items():
        with store.read() as connection:
            found = find_workitems(connection, {key: value}, limit=9, offset=0)
            missed = find_workitems(connection, {key: other.get(key, "x?x")}, limit=9, offset=0)
        assert [row.uid for row in found] == [uid], key
        assert missed == [], key


def test_a_chosen_uid_is_given_once(store: Store) -> None:
    """Of two clients that choose one UID at once, for different studies, one gets it; the other makes no job."""
    take_study(store)
    take_study(store, "1.2.4")
    workitems = make_worklist(store).workitems
    barrier = threading.Barrier(2)

    def create(study: str) -> str:
        content = read_content(creation(study))
        barrier.wait(30)
        try:
            return workitems.create(content, "1.2.3.44").uid
        except WorkitemError as error:
            return error.refusal.name

    with ThreadPoolExecutor(2) as pool:
        outcomes = sorted(pool.map(create, (STUDY, "1.2.4")))

    assert outcomes == ["1.2.3.44", Refusal.EXISTS.name]
    with store.read() as connection:
        assert len(list_jobs(connection)) == 1
        assert get_workitem(connection, "1.2.3.44").job.id == list_jobs(connection)[0].id


@pytest.mark.parametrize("uid", ["2.25.", "2.25.x", "2.25." + "9" * 45, "1.2.3", "2.25.-1", "2.25.\u00b2"])
def test_no_job_is_read_from_what_names_none(uid: str) -> None:
    """A UID that is not made of a job's id leads to none."""
    assert job_of_uid(uid) is None
