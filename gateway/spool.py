"""One instance to disk: temporary file, rename, fsync; and what a restart finds.

Each receiving process owns a folder `incoming/<service_id>/` and holds a lock on a file in it for as long as it lives.
A folder whose lock is free belonged to a process that is gone: whoever takes the lock indexes what lies there.

```
incoming/<service_id>/lock
incoming/<service_id>/<association_id>_<n>.part           being written
incoming/<service_id>/<association_id>_<n>_<digest>.dcm   complete, not yet known to be in the index
```

The name is changed before the file is made durable, so that one commit of the file system's journal serves both. What
a power failure leaves of an instance that was not yet answered is told by the digest in its name.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import os
import shutil
import struct
import threading
from collections import deque
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from gateway.elements import DEFLATED, Head, HeadEndedError
from gateway.errors import CannotUnderstandError, OutOfResourcesError, RefusedError
from gateway.header import InstanceHeader, read_data_set, read_header, read_part10

IMPLEMENTATION_CLASS_UID = "2.25.226417343245712345301822431826049331077"
IMPLEMENTATION_VERSION = "HYBRIDMED_1"
_RESERVE_EVERY = 1 << 23
"""Bytes that the uploads of a process write together before free space is looked at again."""
_CHUNK = 1 << 20
_FEW_FOLDERS = 8
_LIBC = ctypes.CDLL(None, use_errno=True)
_HEAD_BYTES = 1 << 16
"""Of a data set, kept in memory to read its header."""
_MOST_PIECES = 1024
"""Of one writev() (IOV_MAX)."""
_FULL = {errno.ENOSPC, errno.EDQUOT}


@dataclass(frozen=True, slots=True)
class Origin:
    """What the DIMSE command and the association say of an instance."""

    association_id: str
    calling_ae: str
    called_ae: str
    transfer_syntax_uid: str
    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True, slots=True)
class Spooled:
    """An instance that is on disk for good."""

    path: Path
    digest: str
    """SHA-256 of transfer syntax UID and data set, in hexadecimal."""
    size_bytes: int
    """Of the whole file."""
    association_id: str
    calling_ae: str
    received_at: datetime


@dataclass(frozen=True, slots=True)
class DiskLimits:
    """When an instance is not taken for want of room."""

    reserve_bytes: int
    """Free space under which nothing is written."""
    max_instance_bytes: int
    """Largest data set."""


class _Room:
    """Free space above the reserve, as all uploads of a process use it up together."""

    def __init__(self, folder: Path, reserve_bytes: int) -> None:
        self._folder = folder
        self._reserve_bytes = reserve_bytes
        self._unseen = 0
        self._lock = threading.Lock()

    def look(self) -> None:
        """Look at free space; OutOfResourcesError under the reserve, OSError where the disk does not tell."""
        if shutil.disk_usage(self._folder).free < self._reserve_bytes:
            raise OutOfResourcesError("disk under its reserve")

    def take(self, size: int) -> None:
        """Take note of bytes that are about to be written, and look now and then."""
        with self._lock:
            self._unseen += size
            is_due = self._unseen >= _RESERVE_EVERY
            if is_due:
                self._unseen = 0
        if is_due:
            self.look()


class Upload:
    """A data set being written; safe to discard from another thread."""

    def __init__(self, path: Path, file: BinaryIO, origin: Origin, place: _Place) -> None:
        self.path = path
        self._place = place
        self._origin = origin
        self._digest = hashlib.sha256(origin.transfer_syntax_uid.encode())
        self._lock = threading.Lock()
        self._written = 0
        self._head = bytearray()
        self._file: BinaryIO | None = file
        self._unwritten: tuple[bytes, ...] = (_preamble_and_meta(origin),)
        """What goes in front of the first piece, in one call with it."""

    def write(self, *pieces: bytes | memoryview) -> None:
        """Append pieces of the data set; OutOfResourcesError where there is no room, the file being gone then."""
        with self._lock:
            if self._file is None:
                return
            try:
                size = sum(map(len, pieces))
                self._written += size
                if self._written > self._place.limits.max_instance_bytes:
                    raise OutOfResourcesError("instance larger than the limit of this receiver")
                with _as_refusal():
                    self._place.room.take(size)
                    _write_all(self._file, (*self._unwritten, *pieces))
                    self._unwritten = ()
            except OutOfResourcesError:
                self._remove()
                raise
            for piece in pieces:
                self._digest.update(piece)
                if len(self._head) < _HEAD_BYTES:
                    self._head += piece[: _HEAD_BYTES - len(self._head)]

    def header(self) -> InstanceHeader:
        """Return the header of the data set; CannotUnderstandError where there is none, OSError where it is lost."""
        syntax = self._origin.transfer_syntax_uid
        if syntax not in DEFLATED:
            with contextlib.suppress(HeadEndedError):
                return read_data_set(Head(self._head, is_whole=self._written == len(self._head)), syntax)
        return read_header(self.path)

    def commit(self) -> Spooled:
        """Make the file durable under its final name: rename, fsync, fsync of the folder."""
        with self._lock:
            if self._file is None:
                raise OutOfResourcesError("the association ended while its instance was written")
            digest = self._digest.hexdigest()
            final = self.path.with_name(f"{self.path.stem}_{digest}.dcm")
            try:
                with _as_refusal():
                    _write_all(self._file, self._unwritten)
                    size = self._file.tell()
                    self.path.rename(final)
                    os.fsync(self._file.fileno())
                    self._file.close()
                    sync_folder(final.parent)
            except OutOfResourcesError:
                _unlink(final, self._place.left)
                self._remove()
                raise
            self._file = None
            return Spooled(final, digest, size, self._origin.association_id, self._origin.calling_ae, _now())

    def discard(self) -> None:
        """Remove what was written; nothing happens after `commit`."""
        with self._lock:
            self._remove()

    def _remove(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
            _unlink(self.path, self._place.left)


@dataclass(frozen=True, slots=True)
class _Place:
    """What the uploads of a process share."""

    limits: DiskLimits
    room: _Room
    left: deque[Path] = field(default_factory=deque)
    """What could not be removed."""


class Spool:
    """The folder of one receiving process; a context manager that holds its lock."""

    def __init__(self, data_dir: Path, service_id: str, limits: DiskLimits) -> None:
        self.folder = data_dir / "incoming" / service_id
        self._place = _Place(limits, _Room(self.folder, limits.reserve_bytes))
        self._opened: dict[str, tuple[Path, BinaryIO]] = {}
        """Association -> the file that was opened ahead for it."""
        self._lock_file: BinaryIO | None = None
        self._is_kept = False

    def __enter__(self) -> Spool:
        # Made aside and renamed with the lock held, so that nobody ever sees it without a holder.
        making = self.folder.with_name(f".{self.folder.name}")
        make_folder(making.parent)
        making.mkdir()
        self._lock_file = _locked(making / "lock")
        making.rename(self.folder)
        sync_folder(self.folder.parent)
        return self

    def __exit__(self, *_exception: object) -> None:
        if self._lock_file is not None:
            if not self._is_kept:
                _remove_if_empty(self.folder)
            self._lock_file.close()
            self._lock_file = None

    def leave_for_others(self) -> None:
        """Keep the folder at the end, even an empty one: who adopts it closes our associations in the database."""
        self._is_kept = True

    def open_ahead(self, association_id: str, number: int) -> None:
        """Make the file of an association's next instance, its `number`th at the earliest, while that is still to come.

        What fails here fails again at `begin`, where there is somebody to tell.
        """
        if association_id not in self._opened:  # else one was made for an instance that was refused before its file
            path = self._path(association_id, number)
            with contextlib.suppress(OSError):
                self._opened[association_id] = path, path.open("xb", buffering=0)

    def close_ahead(self, association_id: str) -> None:
        """Remove the file that was opened ahead, if there is one: nothing more comes."""
        path, file = self._opened.pop(association_id, (None, None))
        if path is not None and file is not None:
            file.close()
            _unlink(path, self._place.left)

    def begin(self, origin: Origin, number: int) -> Upload:
        """Begin to write the `number`th instance of an association; OutOfResourcesError where there is no room."""
        left = self._place.left
        for _ in range(len(left)):
            with contextlib.suppress(IndexError):  # taken by another association
                _unlink(left.popleft(), left)
        with _as_refusal():
            self._place.room.look()
            path, file = self._opened.pop(origin.association_id, (self._path(origin.association_id, number), None))
            file = file or path.open("xb", buffering=0)
        return Upload(path, file, origin, self._place)

    def _path(self, association_id: str, number: int) -> Path:
        return self.folder / f"{association_id}_{number}.part"


class Orphan:
    """The folder of a process that is gone, with its lock in our hands."""

    def __init__(self, folder: Path, lock_file: BinaryIO) -> None:
        self.folder = folder
        self._lock_file = lock_file

    @property
    def service_id(self) -> str:
        """Which process wrote it."""
        return self.folder.name

    def files(self) -> list[Path]:
        """Return the instances in it, oldest first, having removed what was never finished."""
        for part in self.folder.glob("*.part"):
            part.unlink(missing_ok=True)
        return finished_files(self.folder)

    def release(self) -> None:
        """Give the lock back; the folder goes if nothing is left in it."""
        _remove_if_empty(self.folder)
        self._lock_file.close()


def finished_files(folder: Path) -> list[Path]:
    """Return the instances in the folder of a receiving process, oldest first."""
    return sorted(folder.glob("*.dcm"), key=lambda path: (path.stat().st_mtime_ns, path.name))


def orphans(data_dir: Path) -> Iterator[Orphan]:
    """Yield the folders under `incoming` whose process is gone."""
    for folder in sorted((data_dir / "incoming").glob("[!.]*")):
        if not folder.is_dir():
            continue
        try:
            lock_file = _locked(folder / "lock")
        except OSError:
            continue  # its process lives, or somebody else has just taken it
        if folder.is_dir():
            yield Orphan(folder, lock_file)
        else:
            lock_file.close()


def reread(path: Path) -> Spooled:
    """Return what is known of an instance that a restart found; its bytes are durable then.

    Raises
    ------
    CannotUnderstandError
        It is no DICOM file, or not the one that its name says.
    """
    association_id, _, rest = path.stem.partition("_")
    named = rest.partition("_")[2]
    with path.open("rb") as stream:
        part10 = read_part10(stream)
        digest = hashlib.sha256(part10.transfer_syntax_uid.encode())
        stream.seek(part10.data_set_offset)
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
        os.fsync(stream.fileno())  # its process may have been killed between rename and fsync
        facts = os.fstat(stream.fileno())
    if named and named != digest.hexdigest():
        raise CannotUnderstandError("the file is damaged: cut off before success was answered, or changed since")
    return Spooled(
        path,
        digest.hexdigest(),
        facts.st_size,
        association_id,
        part10.calling_ae,
        datetime.fromtimestamp(facts.st_mtime, UTC),
    )


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it, where they are not there yet; their names are durable then."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def sync_folders(folders: Set[Path]) -> None:
    """Make the names in folders durable: one by one, or where there are many by one call for their file system."""
    if len(folders) <= _FEW_FOLDERS:
        for folder in folders:
            sync_folder(folder)
        return
    descriptor = os.open(next(iter(folders)), os.O_RDONLY | os.O_DIRECTORY)
    try:
        if _LIBC.syncfs(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _preamble_and_meta(origin: Origin) -> bytes:
    """Return preamble and file meta information (PS3.10 7.1).

    Written here and not by pydicom, which refuses UIDs with leading zeros: senders do write them.
    """
    before, after = _meta_around_uid(
        origin.sop_class_uid, origin.transfer_syntax_uid, origin.calling_ae, origin.called_ae
    )
    elements = before + _element(0x0003, b"UI", origin.sop_instance_uid.encode()) + after
    return b"\0" * 128 + b"DICM" + _element(0x0000, b"UL", struct.pack("<L", len(elements))) + elements


@lru_cache(maxsize=64)
def _meta_around_uid(
    sop_class_uid: str, transfer_syntax_uid: str, calling_ae: str, called_ae: str
) -> tuple[bytes, bytes]:
    """Return what stands before and behind the Media Storage SOP Instance UID: the same in all files of a series."""
    before = (
        _element(0x0001, b"OB", b"\x00\x01"),
        _element(0x0002, b"UI", sop_class_uid.encode()),
    )
    after = (
        _element(0x0010, b"UI", transfer_syntax_uid.encode()),
        _element(0x0012, b"UI", IMPLEMENTATION_CLASS_UID.encode()),
        _element(0x0013, b"SH", IMPLEMENTATION_VERSION.encode()),
        _element(0x0016, b"AE", calling_ae.encode()),
        _element(0x0017, b"AE", calling_ae.encode()),
        _element(0x0018, b"AE", called_ae.encode()),
    )
    return b"".join(before), b"".join(after)


def _element(number: int, vr: bytes, value: bytes) -> bytes:
    """Encode an element of group 0002 in Explicit VR Little Endian (PS3.5 7.1.2)."""
    if len(value) % 2:
        value += b"\0" if vr == b"UI" else b" "
    if vr == b"OB":
        return struct.pack("<HH2sxxL", 2, number, vr, len(value)) + value
    return struct.pack("<HH2sH", 2, number, vr, len(value)) + value


def _write_all(file: BinaryIO, pieces: Sequence[bytes | memoryview]) -> None:
    left = [memoryview(piece) for piece in pieces]
    while left:
        written = os.writev(file.fileno(), left[:_MOST_PIECES])
        while left and written >= len(left[0]):
            written -= len(left.pop(0))
        if written:
            left[0] = left[0][written:]


def _locked(path: Path) -> BinaryIO:
    """Open a file and lock it; OSError where another process holds the lock."""
    file = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise
    return file


def _unlink(path: Path, left: deque[Path]) -> None:
    """Remove a file, or leave that to the next instance: the sender is answered whatever the disk does."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        left.append(path)


def _remove_if_empty(folder: Path) -> None:
    if not any(path.name != "lock" for path in folder.iterdir()):
        (folder / "lock").unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            folder.rmdir()


@contextlib.contextmanager
def _as_refusal() -> Iterator[None]:
    try:
        yield
    except RefusedError:
        raise
    except OSError as error:
        reason = "disk full" if error.errno in _FULL else "the instance could not be written"
        raise OutOfResourcesError(reason) from error


def _now() -> datetime:
    return datetime.now(UTC)
