"""A worker on another host needs nothing but database, queue and bucket; the host that delivers neither."""

from pathlib import Path

import boto3
import pydicom

from gateway.job import State
from gateway.store import Store
from gateway.store.files import Files
from gateway.store.results import list_artefacts
from tests.integration.test_bucket import CREDENTIALS, open_bucket
from tests.services.s3 import BUCKET, S3Server
from tests.studies import RealData
from tests.thresholding import Thresholding
from tests.working import add_job, eventually, job_of, make_worker, running, take_in


def test_three_hosts_share_a_study_through_the_bucket(sqlite_store: Store, real_data: RealData, tmp_path: Path) -> None:
    """One received it, one works on it, one reads the results; no folder is shared."""
    server = S3Server(tmp_path)
    server.start()
    hosts = []
    try:
        for name in ("receiver", "worker", "reader"):
            folder = tmp_path / name
            folder.mkdir()
            hosts.append(Store(sqlite_store.engine, folder, Files(folder, open_bucket(server.url))))
        receiver, worker_host, reader = hosts
        uid = take_in(receiver, real_data.cxr[0])
        receiver.files.keep(path.relative_to(receiver.data_dir).as_posix() for path in receiver.data_dir.rglob("*.dcm"))
        job_id = add_job(receiver, uid)
        worker, _ = make_worker(worker_host, lambda _: Thresholding())
        with running(worker):
            eventually(lambda: job_of(reader, job_id).state is State.DONE, "the job is done")
        with reader.read() as connection:
            artefacts = list_artefacts(connection, job_id)
        read = [reader.files.local(one.path) for one in artefacts if one.path.endswith(".dcm")]
        client = boto3.client("s3", endpoint_url=server.url, **CREDENTIALS)
        keys = {one["Key"] for one in client.list_objects_v2(Bucket=BUCKET)["Contents"]}
    finally:
        server.close()

    assert {pydicom.dcmread(path).StudyInstanceUID for path in read} == {uid}
    assert {f"hybridmed/{one.path}" for one in artefacts} <= keys
    assert not (reader.data_dir / "instances").exists()
