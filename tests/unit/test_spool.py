"""One instance to disk: whole and durable, or not at all."""

from __future__ import annotations

import hashlib
import os
import resource
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import generate_uid

from gateway.errors import OutOfResourcesError
from gateway.spool import DiskLimits, Origin, Spool, make_folder, orphans, reread
from tests.receiving import CT, EXPLICIT, encoded, image

NO_LIMIT = DiskLimits(0, 1 << 40)


def _origin(**changes: str) -> Origin:
    values = {"association_id": "a1", "calling_ae": "CT1", "called_ae": "HYBRIDMED", "transfer_syntax_uid": EXPLICIT}
    return Origin(**values | {"sop_class_uid": CT, "sop_instance_uid": generate_uid()} | changes)


def test_a_committed_instance_is_a_part_10_file_with_its_digest(tmp_path: Path) -> None:
    """Pieces become a file that pydicom opens; the digest is that of transfer syntax and data set."""
    data_set = image()
    data = encoded(data_set)

    with Spool(tmp_path, "s1", NO_LIMIT) as spool:
        upload = spool.begin(_origin(sop_instance_uid=data_set.SOPInstanceUID), 1)
        upload.write(data[:10])
        upload.write(memoryview(data)[10:])
        spooled = upload.commit()

    assert pydicom.dcmread(spooled.path).PatientName == "Doe^Jane"
    assert spooled.digest == hashlib.sha256(EXPLICIT.encode() + data).hexdigest()
    assert spooled.size_bytes == spooled.path.stat().st_size
    assert spooled.path.name == f"a1_1_{spooled.digest}.dcm"


def test_a_restart_reads_the_same(tmp_path: Path) -> None:
    """What a restart finds out of the file is what was known when it was received."""
    with Spool(tmp_path, "s1", NO_LIMIT) as spool:
        upload = spool.begin(_origin(), 1)
        upload.write(encoded(image()))
        spooled = upload.commit()

    found = reread(spooled.path)

    assert (found.digest, found.size_bytes, found.association_id, found.calling_ae) == (
        spooled.digest,
        spooled.size_bytes,
        "a1",
        "CT1",
    )
    assert abs((found.received_at - spooled.received_at).total_seconds()) < 5


def test_what_a_restart_found_is_durable_before_it_is_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between rename and fsync, a process leaves bytes that no disk may have: reading them again syncs them."""
    with Spool(tmp_path, "s1", NO_LIMIT) as spool:
        upload = spool.begin(_origin(), 1)
        upload.write(encoded(image()))
        path = upload.commit().path
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))

    reread(path)

    assert synced == [path.stat().st_ino]


def test_a_uid_with_leading_zeros_is_written(tmp_path: Path) -> None:
    """Senders write such UIDs; the file meta information carries them."""
    with Spool(tmp_path, "s1", NO_LIMIT) as spool:
        path = spool.begin(_origin(sop_instance_uid="1.02.003"), 1).commit().path

    assert b"1.02.003" in path.read_bytes()[:600]


def test_a_discarded_upload_leaves_nothing_and_takes_nothing_more(tmp_path: Path) -> None:
    """After discard there is no file, writing is ignored and committing is refused."""
    with Spool(tmp_path, "s1", NO_LIMIT) as spool:
        upload = spool.begin(_origin(), 1)
        upload.write(b"abc")
        upload.discard()
        upload.write(b"def")
        with pytest.raises(OutOfResourcesError):
            upload.commit()

        assert list(spool.folder.glob("a1*")) == []


def test_a_file_opened_ahead_is_taken_or_removed(tmp_path: Path) -> None:
    """The next instance takes it; where none comes, it goes; a restart removes what a kill left of it."""
    with Spool(tmp_path, "s1", NO_LIMIT) as spool:
        spool.open_ahead("a1", 1)
        inode = (spool.folder / "a1_1.part").stat().st_ino
        taken = spool.begin(_origin(), 1)
        taken.write(encoded(image()))
        spooled = taken.commit()
        spool.open_ahead("a1", 2)
        spool.open_ahead("a1", 3)  # the second was refused before it took its file
        third = spool.begin(_origin(), 3)
        third.discard()
        spool.open_ahead("a1", 4)
        spool.close_ahead("a1")
        spool.close_ahead("a1")
        names = [path.name for path in spool.folder.glob("a1*")]

    assert spooled.path.stat().st_ino == inode
    assert names == [spooled.path.name]


def test_the_reserve_holds_for_all_uploads_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many uploads, each of which writes little, look at free space as often as one that writes as much."""
    looks: list[int] = []
    really = shutil.disk_usage

    def disk_usage(folder: Path) -> object:
        looks.append(1)
        return really(folder)

    with Spool(tmp_path, "s1", NO_LIMIT) as spool:
        uploads = [spool.begin(_origin(), number) for number in range(8)]
        monkeypatch.setattr(shutil, "disk_usage", disk_usage)
        for upload in uploads:
            upload.write(bytes(1 << 22))
        for upload in uploads:
            upload.discard()

    assert len(looks) == 4


@contextmanager
def _small_files(limit: int) -> Iterator[None]:
    """Let the kernel refuse writes beyond a file size, as a full disk does."""
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)


def test_a_write_that_fails_is_out_of_resources_and_leaves_nothing(tmp_path: Path) -> None:
    """The kernel refuses a write in the middle: A700, and the half-written file is gone."""
    with Spool(tmp_path, "s1", NO_LIMIT) as spool:
        upload = spool.begin(_origin(), 1)
        with _small_files(100_000), pytest.raises(OutOfResourcesError) as refused:
            upload.write(bytes(200_000))

        assert refused.value.status == 0xA700
        assert list(spool.folder.glob("a1*")) == []


def test_limits_are_held(tmp_path: Path) -> None:
    """No upload begins under the reserve; none grows over the limit."""
    with Spool(tmp_path, "s1", DiskLimits(1 << 60, 1 << 40)) as spool, pytest.raises(OutOfResourcesError):
        spool.begin(_origin(), 1)
    with Spool(tmp_path, "s2", DiskLimits(0, 10)) as spool:
        upload = spool.begin(_origin(), 1)
        with pytest.raises(OutOfResourcesError):
            upload.write(bytes(11))


def test_only_the_folders_of_the_dead_are_orphans(tmp_path: Path) -> None:
    """A held lock protects a folder; a free one does not; one adopter takes it, and an empty folder goes."""
    with Spool(tmp_path, "dead", NO_LIMIT) as spool:
        kept = spool.begin(_origin(), 1).commit()
        (spool.folder / "a1_2.part").write_bytes(b"half")

    with Spool(tmp_path, "alive", NO_LIMIT):
        found = list(orphans(tmp_path))
        again = list(orphans(tmp_path))
        names = [path.name for path in found[0].files()]
        kept.path.unlink()
        found[0].release()

    assert [orphan.service_id for orphan in found] == ["dead"]
    assert again == []
    assert names == [kept.path.name]
    assert list((tmp_path / "incoming").iterdir()) == []


def test_the_name_of_incoming_is_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The data folder itself is synced once `incoming` is made in it, and not again for the next process."""
    synced: list[int] = []
    really = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_ino)
        really(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    for service_id in ("s1", "s2"):
        with Spool(tmp_path, service_id, NO_LIMIT):
            pass

    assert synced.count(tmp_path.stat().st_ino) == 1


def test_a_made_folder_is_durable_at_every_level(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each folder that got a new name in it is synced, the data folder too."""
    synced: list[Path] = []
    monkeypatch.setattr("gateway.spool.sync_folder", synced.append)

    make_folder(tmp_path / "instances" / "ab")
    make_folder(tmp_path / "instances" / "cd")

    assert synced == [tmp_path, tmp_path / "instances", tmp_path / "instances"]
