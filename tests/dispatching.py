"""Studies that a dispatcher meets, and the jobs that it makes."""

from datetime import datetime

from gateway.routing import BundleOffer
from gateway.store import Store, jobs
from tests.stores import NOON, add_instance, add_series, add_study

CT = BundleOffer("ct-lung", lambda modality, *_: modality == "CT")
MR = BundleOffer("mr-hippocampus", lambda modality, *_: modality == "MR")
UID = "1.2.3"


def receive(store: Store, uid: str = UID, modality: str = "CT", count: int = 2, **values: object) -> None:
    """Put a study into the database as it arrives at noon over the association a1."""
    with store.write() as connection:
        add_study(connection, uid, **{"state": "receiving"} | values)
        add_series(connection, uid, f"{uid}.1", modality)
        for number in range(count):
            add_instance(connection, uid, f"{uid}.1", f"{uid}.1.{number}")


def list_jobs(store: Store) -> list[jobs.JobRow]:
    """Read all jobs."""
    with store.read() as connection:
        return jobs.list_jobs(connection)


def finish(store: Store, job_id: str, now: datetime = NOON) -> None:
    """Claim and finish a job."""
    with store.write() as connection:
        claimed = jobs.claim(connection, job_id, "w", now, 60)
        assert claimed is not None
        assert jobs.finish(connection, claimed, now, algorithm=None, summary=None, reason=None)
