"""Results of a real worker in queries: what a search shows of them is what stands in their files."""

from __future__ import annotations

import pydicom

from gateway.job import State
from gateway.query import Query, find, locate
from gateway.query.attributes import BY_TAG, STUDY_UID
from gateway.store import Store
from tests.studies import RealData
from tests.thresholding import Thresholding
from tests.working import add_job, eventually, job_of, make_worker, running, take_in


def test_results_are_shown_as_they_are(local_store: Store, real_data: RealData) -> None:
    """Reports and segmentation of a job are in lists and counts, each attribute as pydicom reads it in the file."""
    study_uid = take_in(local_store, real_data.cxr[0])
    job_id = add_job(local_store, study_uid)
    worker, _ = make_worker(local_store, lambda _name: Thresholding())
    with running(worker):
        eventually(lambda: job_of(local_store, job_id).state == State.DONE, "the job is done")

    with local_store.read() as connection:
        (study,) = find(connection, Query("STUDY", {0x00080061: "SEG"}))
        instances = find(connection, Query("IMAGE", parents={STUDY_UID: study_uid}))
        objects = locate(connection, study_instance_uid=study_uid)

    assert study[0x00080061] == ("DX", "SEG", "SR")
    assert (study[0x00201206], study[0x00201208]) == (4, 4)
    assert sorted(one.is_result for one in objects) == [False, True, True, True]
    assert [one[0x00080018] for one in instances] == [one.sop_instance_uid for one in objects]
    for shown, stored in (
        (shown, stored) for shown, stored in zip(instances, objects, strict=True) if stored.is_result
    ):
        file = pydicom.dcmread(local_store.data_dir / stored.path)
        assert file.file_meta.TransferSyntaxUID == stored.transfer_syntax_uid == shown[0x00083002]
        tags = {tag for tag, one in BY_TAG.items() if one.level in ("SERIES", "IMAGE") and tag in shown and tag in file}
        assert {tag: str(shown[tag]) for tag in tags} == {tag: str(file[tag].value) for tag in tags}
        assert {0x00080060, 0x00200011, 0x0008103E, 0x00080021, 0x00200013} <= tags
