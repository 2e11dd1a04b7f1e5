"""Delete by rejection: DELETE of a study, a series or an instance (IHE RAD TF-2 4.66; CID 7011). Files stay."""

from __future__ import annotations

import hashlib
import io
import os
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pydicom
import structlog
from pydicom.dataset import Dataset
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from gateway.decoding import MALFORMED, read_file
from gateway.header import read_data_set, read_part10
from gateway.query import StoredObject
from gateway.quiet import quietly
from gateway.rejection import CODES, QUALITY
from gateway.report.assignment import ObjectReference
from gateway.report.rejection_note import REASONS, NoteIdentity, render_rejection_note
from gateway.spool import make_folder, sync_folder
from gateway.store import Store
from gateway.store.instances import ReceivedInstance
from gateway.store.rejections import Rejected, Rejection, add_note, reject
from gateway.store.studies import get_study, lock_study
from gateway.web.dicomweb.target import base_url, located

log = structlog.get_logger()

_REQUESTED_BY = "web"
_STUDY = "/studies/{study}"
_PATHS = (_STUDY, _STUDY + "/series/{series}", _STUDY + "/series/{series}/instances/{instance}")
_COPIED = (
    *("patient_id", "patient_name", "patient_birth_date", "patient_sex", "accession_number", "study_id"),
    *("study_date", "study_time", "study_description"),
)


class Rejecting:
    """The routes of deletion.

    Parameters
    ----------
    store
        Database and data folder; the folder must be writable.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def routes(self) -> list[BaseRoute]:
        """Return the routes."""
        return [Route(path, self.delete, methods=["DELETE"]) for path in _PATHS]

    def delete(self, request: Request) -> Response:
        """`DELETE …?reason=113001`: 200 with the note's address; 400, 404, 410 where it has been rejected before."""
        code = request.query_params.get("reason", QUALITY)
        if code not in CODES:
            raise HTTPException(400, f"reason is one of {', '.join(sorted(CODES))} (DCM, CID 7011)")
        objects = located(self._store, request)
        now = datetime.now(UTC)
        with quietly():
            note = self._place(self._note(objects, code, now), now)
        self._store.files.keep([note.path])
        with self._store.write() as connection:
            lock_study(connection, note.header.study_instance_uid)
            add_note(connection, note)
            rejected = [Rejected(o.study_instance_uid, o.series_instance_uid, o.sop_instance_uid) for o in objects]
            decision = Rejection(code, rejected, note.header.sop_instance_uid, _REQUESTED_BY)
            count = reject(connection, decision, now)
            if not count:
                connection.rollback()
        if not count:
            self._store.files.remove(note.path)
            raise HTTPException(410, "it has been rejected by another request just now")
        log.info("study.rejected", study_instance_uid=note.header.study_instance_uid, instances=count, code=code)
        return self._answer(request, note, count)

    def _answer(self, request: Request, note: ReceivedInstance, count: int) -> Response:
        header = note.header
        url = (
            f"{base_url(request)}/studies/{header.study_instance_uid}/series/{header.series_instance_uid}"
            f"/instances/{header.sop_instance_uid}"
        )
        body = orjson.dumps({"rejected": count, "note": url})
        return Response(body, media_type="application/json", headers={"Content-Location": url})

    def _note(self, objects: Sequence[StoredObject], code: str, now: datetime) -> Dataset:
        references = [
            ObjectReference("", o.study_instance_uid, o.series_instance_uid, o.sop_class_uid, o.sop_instance_uid)
            for o in objects
        ]
        identity = NoteIdentity(_new_uid(), _new_uid(), now)
        return render_rejection_note(references, REASONS[code], source=self._source(objects), identity=identity)

    def _source(self, objects: Sequence[StoredObject]) -> Dataset:
        """Return the header of an object of the study; what the index knows where no file can be read."""
        for one in objects[:10]:
            try:
                return read_file(self._store.files.local(one.path), stop_before_pixels=True)
            except (OSError, *MALFORMED) as error:
                log.error("reject.file_missing", file=Path(one.path).name, error=type(error).__name__)
        with self._store.read() as connection:
            known = get_study(connection, objects[0].study_instance_uid)
        source = Dataset()
        source.SpecificCharacterSet = "ISO_IR 192"
        source.StudyInstanceUID = known.study_instance_uid
        for name in _COPIED:
            setattr(source, "".join(map(_capital, name.split("_"))), getattr(known, name))
        return source

    def _place(self, note: Dataset, now: datetime) -> ReceivedInstance:
        """Write the note where instances lie, durably."""
        buffer = io.BytesIO()
        pydicom.dcmwrite(buffer, note, enforce_file_format=True)
        content = buffer.getvalue()
        stream = io.BytesIO(content)
        part10 = read_part10(stream)
        digest = hashlib.sha256(part10.transfer_syntax_uid.encode() + content[part10.data_set_offset :]).hexdigest()
        stream.seek(part10.data_set_offset)
        header = read_data_set(stream, part10.transfer_syntax_uid)
        path = f"instances/{digest[:2]}/{digest}.dcm"
        final = self._store.data_dir / path
        make_folder(final.parent)
        with final.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        sync_folder(final.parent)
        return ReceivedInstance(header, digest, path, len(content), str(uuid.uuid4()), "HYBRIDMED", now)


def _new_uid() -> str:
    return f"2.25.{uuid.uuid4().int}"


def _capital(word: str) -> str:
    return {"id": "ID"}.get(word, word.capitalize())
