"""A backup in a folder: tables from one snapshot, files beside them, a manifest with digests over all.

Files are written once and named by their content, so that a second backup into the same folder copies what is new, and
one that is killed leaves the earlier backup as it was. The tables are read first: every file that a row names lay on
disk before the row did. Where retention removed one meanwhile, the tables are read again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import orjson
import sqlalchemy as sa

import gateway
from gateway.care.dump import dumped_tables, insert_table, snapshot, write_table
from gateway.errors import ConflictError, NotFoundError
from gateway.spool import sync_folder
from gateway.store import Store, open_store, schema
from gateway.store.tables import artefact, instance, study

_MANIFEST = "manifest.json"
_TABLES = "tables"
_FILES = "files"
_REBUILT = frozenset({"cache", "viewer", "tmp"})
"""Folders of the data folder that are made again by themselves."""
_DATABASE = "hybridmed.db"
_WRITTEN_ONCE = frozenset({"instances", "results"})
_PASSING = frozenset({".part", ".lock", ".journal"})
"""Suffixes of files that mean nothing elsewhere; what a journal holds is in the database soon after."""
_TRIES = 5


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a backup holds."""

    program: str
    schema: str
    created_at: str
    tables: Mapping[str, tuple[int, str]]
    """Name -> rows, SHA-256 of the file."""
    files: Mapping[str, tuple[int, str]]
    """Path -> bytes, SHA-256."""


@dataclass(frozen=True, slots=True)
class Checked:
    """What a look at a backup found."""

    tables: int
    rows: int
    files: int
    problems: tuple[str, ...]
    """Sentences; empty where the backup can be trusted."""


def back_up(store: Store, folder: Path) -> Manifest:
    """Write a backup; what an earlier one left in the folder is used again.

    Raises
    ------
    DatabaseAwayError
        The database does not answer.
    """
    for part in (folder, folder / _TABLES, folder / _FILES):
        part.mkdir(parents=True, exist_ok=True, mode=0o700)
    for _ in range(_TRIES):
        counted, named = _write_tables(store, folder)
        copied = _copy_files(store, folder, named)
        if not _removed_since(store, named - copied.keys()):
            break
    revision = schema.current_revision(store) or ""
    manifest = Manifest(gateway.__version__, revision, datetime.now(UTC).isoformat(), counted, copied)
    _write_whole(folder / _MANIFEST, orjson.dumps(asdict(manifest), option=orjson.OPT_INDENT_2))
    current = {_table_file(folder, name, digest) for name, (_, digest) in counted.items()}
    for file in set((folder / _TABLES).iterdir()) - current:
        file.unlink()
    return manifest


def verify(folder: Path) -> Checked:
    """Prove that a backup can be restored: do it, into a database of its own that is thrown away.

    Every digest is computed anew, every row is inserted with the foreign keys on, and every file that a row names is
    looked for.
    """
    manifest = read_manifest(folder)
    problems = [f"{name}: its digest differs" for name in _wrong(folder, manifest)]
    rows = 0
    with tempfile.TemporaryDirectory(prefix="hybridmed-drill-") as scratch:
        drill = open_store(f"sqlite:///{scratch}/drill.db", Path(scratch))
        try:
            rows = _fill(drill, folder, manifest)
            with drill.read() as connection:
                named = _named(connection)
            problems += [f"{path}: a row names it, and it is not there" for path in _missing(folder, manifest, named)]
        except (sa.exc.SQLAlchemyError, OSError, ValueError, ConflictError) as error:
            problems.append(f"the tables cannot be restored: {type(error).__name__}")
        finally:
            drill.close()
    return Checked(len(manifest.tables), rows, len(manifest.files), tuple(problems))


def restore(store: Store, folder: Path) -> Checked:
    """Bring a backup into an empty database and data folder.

    Raises
    ------
    ConflictError
        The backup has faults, or there is something in the database already.
    """
    checked = verify(folder)
    if checked.problems:
        raise ConflictError(f"the backup has faults, nothing was restored: {'; '.join(checked.problems[:5])}")
    manifest = read_manifest(folder)
    if schema.current_revision(store) is not None:
        with store.read() as connection:
            if connection.scalar(sa.select(sa.func.count()).select_from(study)):
                raise ConflictError("the database holds studies: restore into an empty one")
    for path in manifest.files:
        _copied(folder / _FILES / path, store.data_dir / path)
    store.files.keep(path for path in manifest.files if path.startswith(("instances/", "results/")))
    _fill(store, folder, manifest)
    return checked


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest; NotFoundError where there is no finished backup."""
    file = folder / _MANIFEST
    if not file.is_file():
        raise NotFoundError(f"no finished backup in {folder}")
    return Manifest(**orjson.loads(file.read_bytes()))


def _fill(store: Store, folder: Path, manifest: Manifest) -> int:
    if manifest.schema != schema.head_revision():
        advice = f"restore it by program {manifest.program}, then upgrade"
        raise ConflictError(f"the backup has schema {manifest.schema}, this program {schema.head_revision()}: {advice}")
    schema.upgrade(store)
    with store.write() as connection:
        for table in reversed(dumped_tables()):
            connection.execute(sa.delete(table))  # what migrations put in
        return sum(
            insert_table(connection, table, _table_file(folder, str(table.name), manifest.tables[str(table.name)][1]))
            for table in dumped_tables()
        )


def _named(connection: sa.Connection) -> list[tuple[str, int]]:
    """Return path and size of each file that a row names."""
    queries = (sa.select(table.c.path, table.c.size_bytes) for table in (instance, artefact))
    return [(path, size) for query in queries for path, size in connection.execute(query)]


def _missing(folder: Path, manifest: Manifest, named: list[tuple[str, int]]) -> list[str]:
    return sorted({path for path, size in named if manifest.files.get(path, (None, ""))[0] != size})


def _wrong(folder: Path, manifest: Manifest) -> Iterator[str]:
    for name, (_, digest) in manifest.tables.items():
        file = _table_file(folder, name, digest)
        if not file.is_file() or _digest(file) != digest:
            yield f"{_TABLES}/{name}"
    for path, (_, digest) in manifest.files.items():
        file = folder / _FILES / path
        if not file.is_file() or _digest(file) != digest:
            yield path


def _write_tables(store: Store, folder: Path) -> tuple[dict[str, tuple[int, str]], set[str]]:
    """Write all tables, each under a name that follows from its content; return them, and the files that rows name."""
    counted: dict[str, tuple[int, str]] = {}
    with store.read() as connection:
        snapshot(connection)
        for table in dumped_tables():
            partial = folder / _TABLES / f"{table.name}.part"
            rows = write_table(connection, table, partial)
            counted[str(table.name)] = (rows, _digest(partial))
            with partial.open("rb") as file:
                os.fsync(file.fileno())
            partial.rename(_table_file(folder, str(table.name), counted[str(table.name)][1]))
        named = {path for path, _ in _named(connection)}
    sync_folder(folder / _TABLES)
    return counted, named


def _table_file(folder: Path, name: str, digest: str) -> Path:
    return folder / _TABLES / f"{name}-{digest[:16]}.jsonl.gz"


def _copy_files(store: Store, folder: Path, named: set[str]) -> dict[str, tuple[int, str]]:
    """Copy what rows name, each as soon as it is here, and whatever else is ours; what goes meanwhile is left out."""
    copied: dict[str, tuple[int, str]] = {}
    for path in sorted(named):
        with contextlib.suppress(FileNotFoundError):
            copied[path] = _copied(store.files.local(path), folder / _FILES / path)
    for path in _own_files(store, folder):
        if path not in copied:
            with contextlib.suppress(FileNotFoundError):
                copied[path] = _copied(store.data_dir / path, folder / _FILES / path)
    return copied


def _removed_since(store: Store, missing: set[str]) -> bool:
    """Say whether rows that named missing files have gone, too: the snapshot is of a moment that files are not of."""
    if not missing:
        return False
    with store.read() as connection:
        return not missing <= {path for path, _ in _named(connection)}


def _own_files(store: Store, backup: Path) -> Iterator[str]:
    """Yield what lies in the data folder, but for what is made again by itself, and the backup where it lies there."""
    for top, folders, names in os.walk(store.data_dir):  # goes on where a folder vanishes
        folder = Path(top)
        folders[:] = sorted(name for name in folders if (folder / name).resolve() != backup.resolve())
        for name in sorted(names):
            path = (folder / name).relative_to(store.data_dir)
            is_ours = path.parts[0] not in _REBUILT and not path.parts[0].startswith((_DATABASE, "."))
            if is_ours and path.suffix not in _PASSING and name != "lock" and (folder / name).is_file():
                yield path.as_posix()


def _copied(source: Path, target: Path) -> tuple[int, str]:
    """Copy a file, unless the target is it already; return size and digest."""
    size = source.stat().st_size
    if not _is_copy(source, target):
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(target.name + ".part")
        shutil.copy(source, partial)  # with its mode: keys stay their owner's
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.rename(target)
        sync_folder(target.parent)
    return size, _digest(target)


def _is_copy(source: Path, target: Path) -> bool:
    if not target.exists() or target.stat().st_size != source.stat().st_size:
        return False
    # Instances and results are written once and named by their content; keys and ids of one length may differ.
    return target.parent.parent.name in _WRITTEN_ONCE or _digest(target) == _digest(source)


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _write_whole(file: Path, content: bytes) -> None:
    partial = file.with_name(file.name + ".part")
    with partial.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    partial.rename(file)
    sync_folder(file.parent)
