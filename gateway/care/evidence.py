"""Everything about one study in one archive, for a review or a court: rows, files, digests. It holds patient data."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import orjson
import sqlalchemy as sa
from sqlalchemy.engine import Connection

import gateway
from gateway.care.dump import dumped_tables, encoded
from gateway.errors import NotFoundError
from gateway.store import Store, schema
from gateway.store.tables import artefact, association, association_content, instance, job, study

_LARGEST_PIECE = 1 << 20


def export_evidence(store: Store, study_instance_uid: str, target: Path) -> int:
    """Write the archive, readable by its owner alone; return how many files are in it.

    Raises
    ------
    NotFoundError
        There is no such study.
    ConflictError
        The target is there already.
    """
    with store.read() as connection:
        if connection.scalar(sa.select(study.c.study_instance_uid).where(_is(study, study_instance_uid))) is None:
            raise NotFoundError(f"no study {study_instance_uid}")
        rows = {str(table.name): list(_rows(connection, table, study_instance_uid)) for table in dumped_tables()}
        files = _files(connection, study_instance_uid)
    digests: dict[str, str] = {}
    handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, lines in rows.items():
            if lines:
                content = b"\n".join(lines) + b"\n"
                digests[f"tables/{name}.jsonl"] = hashlib.sha256(content).hexdigest()
                archive.writestr(f"tables/{name}.jsonl", content)
        for path in files:
            digests[path] = _add(archive, store.files.local(path), path)
        about = {
            "study_instance_uid": study_instance_uid,
            "exported_at": datetime.now(UTC).isoformat(),
            "program": gateway.__version__,
            "schema": schema.head_revision(),
            "sha256": digests,
        }
        archive.writestr("manifest.json", orjson.dumps(about, option=orjson.OPT_INDENT_2))
    return len(digests)


def _rows(connection: Connection, table: sa.Table, uid: str) -> Iterator[bytes]:
    condition = _belongs(table, uid)
    if condition is not None:
        for row in connection.execute(sa.select(table).where(condition)):
            yield encoded(table, row._mapping)


def _belongs(table: sa.Table, uid: str) -> sa.ColumnElement[bool] | None:
    """Return what makes a row of this study; None where no row of the table is of any study."""
    if table is association:
        return association.c.id.in_(
            sa.select(association_content.c.association_id).where(_is(association_content, uid))
        )
    if "study_instance_uid" in table.c:
        return _is(table, uid)
    if "job_id" in table.c:
        return table.c.job_id.in_(sa.select(job.c.id).where(_is(job, uid)))
    return None


def _is(table: sa.Table, uid: str) -> sa.ColumnElement[bool]:
    return table.c.study_instance_uid == uid


def _files(connection: Connection, uid: str) -> list[str]:
    found = (connection.scalars(sa.select(table.c.path).where(_is(table, uid))) for table in (instance, artefact))
    return sorted({path for paths in found for path in paths})


def _add(archive: zipfile.ZipFile, source: Path, name: str) -> str:
    digest = hashlib.sha256()
    with source.open("rb") as stream, archive.open(name, "w", force_zip64=True) as member:
        while piece := stream.read(_LARGEST_PIECE):
            digest.update(piece)
            member.write(piece)
    return digest.hexdigest()
