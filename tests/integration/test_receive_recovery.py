"""A receiver killed at any moment: what was answered with success is there after the restart, once."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import sqlalchemy as sa
from pydicom.uid import generate_uid

from gateway.spool import DiskLimits, Origin, Spool
from gateway.store import Store
from gateway.store.tables import association, quarantine
from tests.receiving import (
    CT,
    EXPLICIT,
    Sending,
    associated,
    encoded,
    image,
    kept_files,
    receiving,
    rows,
    send,
    sending,
    spooled_files,
    until,
)
from tests.services.process import HANGS_S, free_port
from tests.studies import REPOSITORY

NO_LIMIT = DiskLimits(0, 1 << 40)


@contextmanager
def receiver_process(data_dir: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run a receiver as a process; whatever is left of it at the end is killed."""
    command = [sys.executable, "-m", "tests.receiving_process", str(data_dir), str(port)]
    process = subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        until(lambda: _listens(port) or process.poll() is not None, "the receiver listens", HANGS_S)
        yield process
    finally:
        process.kill()
        process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_every_success_outlives_a_kill(local_store: Store) -> None:
    """SIGKILL at three random moments of sending 200 instances; each one answered with success is indexed once."""
    study_uid = generate_uid()
    images = [image(study_uid, InstanceNumber=n, PixelData=bytes(20_000), BitsAllocated=8) for n in range(200)]
    waiting = [sending(one) for one in images]
    successes: set[str] = set()
    seed = int.from_bytes(os.urandom(4))
    # Far apart: a process that is killed may answer once more. No secret hangs on the choice.
    kills = sorted(random.Random(seed).sample(range(10, 190, 10), 3))
    port = free_port()
    begun = 0

    while waiting:
        begun += 1
        with receiver_process(local_store.data_dir, port) as process, associated(port, waiting[:1]) as scu:
            while waiting and (answer := send(scu, waiting[0])) is not None:
                assert answer.status == 0
                successes.add(waiting.pop(0).sop_instance_uid)
                # One that is killed before its association is in the index leaves no association to be lost.
                until(lambda count=begun: _associations(local_store) == count, "it is in the index")  # type: ignore[misc]
                if kills and len(successes) >= kills[0]:
                    kills.pop(0)
                    process.send_signal(signal.SIGKILL)
            if not waiting:
                scu.release()
                process.terminate()
                process.wait(HANGS_S)

    assert len(successes) == 200, f"seed {seed}"
    assert sorted(row.sop_instance_uid for row in rows(local_store)) == sorted(successes), f"seed {seed}"
    assert {path.stem for path in kept_files(local_store)} == {row.digest for row in rows(local_store)}
    assert spooled_files(local_store) == []
    with local_store.read() as connection:
        outcomes = connection.execute(sa.select(association.c.outcome)).scalars().all()
    assert sorted(outcomes) == ["lost", "lost", "lost", "released"]


def _associations(store: Store) -> int:
    with store.read() as connection:
        return connection.scalar(sa.select(sa.func.count()).select_from(association)) or 0


def _spooled(store: Store, service_id: str, data: bytes, number: int = 1) -> Path:
    """Leave an instance in the spool of a process that then is gone."""
    spool = Spool(store.data_dir, service_id, NO_LIMIT)
    with spool:
        upload = spool.begin(Origin("a1", "CT1", "HYBRIDMED", EXPLICIT, CT, generate_uid()), number)
        upload.write(data)
        return upload.commit().path


def test_each_point_of_a_kill_in_indexing_is_mended(local_store: Store) -> None:
    """Killed before the link, after it, and after the commit: each time one row, one file and an empty spool."""
    data = encoded(image())
    digest = hashlib.sha256(EXPLICIT.encode() + data).hexdigest()

    for service_id in ("before-link", "after-link", "after-commit"):
        spooled = _spooled(local_store, service_id, data)
        if service_id == "after-link":
            kept = local_store.data_dir / "instances" / digest[:2] / f"{digest}.dcm"
            kept.unlink()
            with local_store.write() as connection:
                connection.execute(sa.text("DELETE FROM instance"))
            kept.hardlink_to(spooled)
        with receiving(local_store):
            pass

        assert [row.digest for row in rows(local_store)] == [digest]
        assert [path.stem for path in kept_files(local_store)] == [digest]
        assert spooled_files(local_store) == []
        assert rows(local_store)[0].calling_ae == "CT1"


def test_what_was_never_finished_is_removed_and_rubbish_is_put_aside(local_store: Store) -> None:
    """A half-written file of a dead process goes; one that cannot be read goes to quarantine with the reason."""
    spooled = _spooled(local_store, "dead", encoded(image()))
    spooled.with_name("a1_2.part").write_bytes(b"half")
    spooled.with_name("a1_3.dcm").write_bytes(b"not DICOM")

    with receiving(local_store):
        pass
    with local_store.read() as connection:
        listed = connection.execute(sa.select(quarantine.c.path, quarantine.c.reason)).all()

    assert spooled_files(local_store) == []
    assert len(rows(local_store)) == 1
    assert [tuple(row) for row in listed] == [("quarantine/a1_3.dcm", "not a DICOM file")]
    assert (local_store.data_dir / "quarantine" / "a1_3.dcm").read_bytes() == b"not DICOM"


def test_associations_left_open_without_a_database_are_lost_at_the_next_start(local_store: Store) -> None:
    """The database goes away and the receiver stops: the next one indexes what was left and closes its associations."""
    present = local_store.engine
    with receiving(local_store) as running, associated(running.port, [sending(image())]) as scu:
        send(scu, sending(image()))
        until(lambda: len(rows(local_store)) == 1, "the first instance is indexed")
        local_store.engine = sa.create_engine("postgresql+psycopg://postgres@127.0.0.1:1/none")
        send(scu, sending(image()))
    local_store.engine = present

    with receiving(local_store):
        pass
    with local_store.read() as connection:
        outcomes = connection.execute(sa.select(association.c.outcome)).scalars().all()

    assert len(rows(local_store)) == 2
    assert outcomes == ["lost"]


def test_the_spool_of_a_living_process_is_left_alone(local_store: Store) -> None:
    """A second receiver on the same folder takes nothing from one that lives, half-written or not."""
    with Spool(local_store.data_dir, "alive", NO_LIMIT) as spool:
        upload = spool.begin(Origin("a1", "CT1", "HYBRIDMED", EXPLICIT, CT, generate_uid()), 1)
        upload.write(encoded(image()))
        with receiving(local_store):
            pass

        assert [path.name for path in spooled_files(local_store)] == ["a1_1.part"]
        upload.discard()


def test_memory_stays_flat_for_a_large_instance(local_store: Store) -> None:
    """A multi-frame of 200 MiB passes through a receiver that grows by less than a fifth of that."""
    size = 200 << 20
    whole = image(NumberOfFrames=400, BitsAllocated=8)
    head = encoded(whole)
    data = head + b"\xe0\x7f\x10\x00OW\0\0" + size.to_bytes(4, "little") + bytes(size)
    large = Sending(CT, whole.SOPInstanceUID, EXPLICIT, data)
    port = free_port()

    with receiver_process(local_store.data_dir, port) as process, associated(port, [large]) as scu:
        watched = psutil.Process(process.pid)
        before = watched.memory_info().rss
        answer = send(scu, large)
        peak = _peak_rss(process.pid)
        process.terminate()
        process.wait(HANGS_S)

    assert answer is not None
    assert answer.status == 0
    assert rows(local_store)[0].size_bytes > size
    assert peak - before < size / 5


def _peak_rss(pid: int) -> int:
    """Return the most memory that a process ever held, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) * 1024
