"""Two receivers, two dispatchers, three workers, PostgreSQL, RabbitMQ, S3; faults one after another under load."""

from __future__ import annotations

import contextlib
import hashlib
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import boto3
import pydicom
import sqlalchemy as sa
from pydicom.uid import generate_uid

from gateway.config import DicomAddress
from gateway.errors import GatewayError
from gateway.sending import send_files
from gateway.store.tables import artefact, instance, job
from tests import studies
from tests.benchmarks.hosts.hosts import GATE, Door, Host, Network, require_root
from tests.services import postgres, rabbitmq
from tests.services.process import LOOPBACK, run, wait_until
from tests.services.s3 import BUCKET, S3Server, settings_of

_PORT = 11112
_LONGEST_S = 240
_AWAY_S = 15
_CREDENTIALS = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}


@dataclass
class Site:
    """Everything that runs, and what was acknowledged."""

    folder: Path
    engine: sa.Engine
    hosts: dict[str, Host]
    doors: dict[str, Door]
    s3: S3Server
    template: pydicom.Dataset
    acknowledged: dict[str, str] = field(default_factory=dict)
    """Study -> SOP Instance UID."""

    def send(self) -> str:
        """Send a study until one of the receivers takes it, as a PACS would; return its UID."""
        dataset = self.template
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        file = self.folder / "load.dcm"
        dataset.save_as(file)
        receivers = [host for name, host in self.hosts.items() if name.startswith("receive")]
        deadline = time.monotonic() + _LONGEST_S
        while time.monotonic() < deadline:
            for host in receivers:
                with contextlib.suppress(GatewayError):
                    if all(one.is_stored for one in send_files(_address(host), "LOAD", [file])):
                        self.acknowledged[str(dataset.StudyInstanceUID)] = str(dataset.SOPInstanceUID)
                        return str(dataset.StudyInstanceUID)
        raise TimeoutError("no receiver took a study")

    def is_done(self, study: str) -> bool:
        """Say whether a study has its result."""
        query = sa.select(job.c.id).where(job.c.study_instance_uid == study, job.c.state == "done")
        with self.engine.connect() as connection:
            return connection.scalar(query) is not None

    def recovery_s(self) -> float:
        """Return how long a study that is sent now takes to its result."""
        began = time.monotonic()
        study = self.send()
        wait_until(lambda: self.is_done(study), _LONGEST_S, f"the result of {study}")
        return time.monotonic() - began


def main() -> None:
    """Run it all, print a line for each fault, and exit with 1 where something was lost or doubled."""
    require_root()
    with contextlib.ExitStack() as closing:
        site = _site(closing)
        print(f"{'no fault':34} {site.recovery_s():6.1f} s to a result", flush=True)
        for what, hurt, mend in _faults(site):
            hurt()
            waiting = [site.send()] if "receive" not in what and "away" not in what else []
            if "away" in what:
                time.sleep(_AWAY_S)
                mend()
            print(f"{what:34} {site.recovery_s():6.1f} s to a result", flush=True)
            if "away" not in what:
                mend()
            for study in waiting:
                wait_until(lambda study=study: site.is_done(study), _LONGEST_S, f"the result of {study}")
        problems = list(_lost_or_doubled(site))
    for problem in problems:
        print(problem)
    print(
        f"{len(site.acknowledged)} studies acknowledged; "
        + ("NOT WELL" if problems else "nothing lost, nothing doubled")
    )
    sys.exit(1 if problems else 0)


def _faults(site: Site) -> Iterator[tuple[str, Callable[[], None], Callable[[], None]]]:
    hosts, doors = site.hosts, site.doors
    for name in ("receive1", "dispatch1", "work1"):
        yield f"{name} killed", hosts[name].kill, hosts[name].start
    for name in ("receive2", "dispatch2", "work2"):
        yield f"{name} cut off", hosts[name].cut_off, hosts[name].plug_in
    for name, door in doors.items():
        yield f"{name} away for {_AWAY_S} s", door.shut, door.open


def _site(closing: contextlib.ExitStack) -> Site:
    folder = Path(closing.enter_context(tempfile.TemporaryDirectory(prefix="hybridmed-hosts-")))
    closing.enter_context(Network())
    queue = rabbitmq.obtain()
    closing.callback(queue.close)
    database = postgres.obtain()
    closing.callback(database.close)
    url = closing.enter_context(postgres.database(database.port))
    vhost = closing.enter_context(queue.virtual_host())
    s3 = S3Server(folder)
    closing.callback(s3.close)
    s3.start()
    doors = {
        "PostgreSQL": Door(5432, f"{LOOPBACK}:{database.port}", folder),
        "RabbitMQ": Door(5672, f"{LOOPBACK}:{queue.port}", folder),
        "bucket": Door(9000, f"{LOOPBACK}:{s3.port}", folder),
    }
    for door in doors.values():
        closing.callback(door.shut)
        door.open()
    env = {
        **settings_of(s3),
        "HYBRIDMED_CONFIG": str(folder / "none.toml"),
        "HYBRIDMED_DATABASE_URL": url.replace(f"{LOOPBACK}:{database.port}", f"{GATE}:5432"),
        "HYBRIDMED_BROKER_URL": vhost.replace(f"{LOOPBACK}:{queue.port}", f"{GATE}:5672"),
        "HYBRIDMED_S3__ENDPOINT": f"http://{GATE}:9000",
        "HYBRIDMED_S3__TIMEOUT_S": "5",
        "HYBRIDMED_AUTH": "token",
        "HYBRIDMED_TOKENS": hashlib.sha256(b"nobody asks").hexdigest(),
        "HYBRIDMED_ALLOWED_AES": "LOAD",
        "HYBRIDMED_ACCESS__TRUSTED_PROXIES": GATE,
        "HYBRIDMED_QUIET_S": "1",
        "HYBRIDMED_LEASE_S": "6",
        "HYBRIDMED_RETRY_S": "0.5",
        "HYBRIDMED_RETRY_LIMIT_S": "3",
        "HYBRIDMED_RESERVE_MIB": "64",
        "HYBRIDMED_DEVICE": "cpu",
        "HYBRIDMED_LOG_FORMAT": "json",
    }
    run(sys.executable, "-m", "gateway", "db", "upgrade", env={**env, "HYBRIDMED_DATA_DIR": str(folder / "operator")})
    hosts = {}
    for role, count in (("receive", 2), ("dispatch", 2), ("work", 3)):
        for number in range(1, count + 1):
            name = f"{role}{number}"
            hosts[name] = Host(name, 11 + len(hosts), role, folder / name, env)
            closing.callback(hosts[name].remove)
            hosts[name].connect()
            hosts[name].start()
    for name in ("receive1", "receive2"):
        wait_until(lambda name=name: hosts[name].listens(_PORT), 120, f"{name} listens")
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    template = pydicom.dcmread(studies.find(folder).cxr[0])
    return Site(folder, engine, hosts, doors, s3, template)


def _lost_or_doubled(site: Site) -> Iterator[str]:
    """Yield a sentence for each thing that is not there exactly once."""
    with site.engine.connect() as connection:
        kept = Counter(connection.scalars(sa.select(instance.c.sop_instance_uid)))
        results = Counter(connection.scalars(sa.select(job.c.study_instance_uid).where(job.c.state == "done")))
        objects = Counter(connection.scalars(sa.select(artefact.c.sop_instance_uid).where(artefact.c.kind == "seg")))
        rows = [*connection.execute(sa.select(instance.c.path, instance.c.size_bytes))]
        rows += connection.execute(sa.select(artefact.c.path, artefact.c.size_bytes))
    for study, uid in site.acknowledged.items():
        if kept[uid] != 1:
            yield f"an acknowledged instance has {kept[uid]} rows"
        if results[study] != 1:
            yield f"a study has {results[study]} results"
    yield from (f"a segmentation stands {count} times" for count in objects.values() if count != 1)
    client = boto3.client("s3", endpoint_url=site.s3.url, **_CREDENTIALS)
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
    sizes = {one["Key"]: one["Size"] for page in pages for one in page.get("Contents", ())}
    yield from (f"not in the bucket: {path}" for path, size in rows if sizes.get(f"hybridmed/{path}") != size)


def _address(host: Host) -> DicomAddress:
    return DicomAddress("HYBRIDMED", host.address, _PORT)


if __name__ == "__main__":
    main()
