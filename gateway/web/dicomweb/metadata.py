"""Metadata of studies, series and instances (PS3.18 10.4.1.1.2): from a cache on disk, a file for each series.

```
cache/metadata/<ab>/<SHA-256 of study and series UID>.pack
    <path of the object in the data folder>:<its size> <CRC-32 of the rest> <JSON>, and a line end
```

An object's file never changes, so a line is right for ever. A request reads the files of the objects that have no line
yet, and writes the pack anew beside the old one, which it then replaces: of two that do so at once, one wins, and the
other's work is done again by a later request.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import uuid
import zlib
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

import orjson
import structlog
from starlette.requests import Request
from starlette.responses import Response

from gateway.decoding import MALFORMED
from gateway.query import StoredObject
from gateway.store import Store
from gateway.web.dicomweb.dataset_json import BULK_MARK, JsonElement, Remembered, read_json
from gateway.web.dicomweb.multipart import closing, new_boundary
from gateway.web.dicomweb.native_xml import multipart_type, xml_parts
from gateway.web.dicomweb.negotiation import DICOM_JSON, DICOM_XML, chosen_model
from gateway.web.dicomweb.streaming import Made, Piece, PieceResponse
from gateway.web.dicomweb.target import base_url, located, object_url

log = structlog.get_logger()

_LOCKS = 64
_MARK = b'"BulkDataURI":"' + orjson.dumps(BULK_MARK)[1:-1]
_SHORT_MARK = b'"BulkDataURI":"' + BULK_MARK.encode()
"""As it stands in a pack: a control character that JSON itself never holds, so that no value can look like it."""
_LINE_PARTS = 3


class Metadata:
    """The endpoint.

    Parameters
    ----------
    store
        Database and data folder.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._locks = [threading.Lock() for _ in range(_LOCKS)]

    def retrieve(self, request: Request) -> Response:
        """`…/metadata`: 200 with DICOM JSON or a part of XML for each object, 404, 406, 410."""
        wanted = chosen_model(request)
        objects = located(self._store, request)
        base = base_url(request)
        by_series = [list(group) for _, group in groupby(objects, key=lambda one: one.series_instance_uid)]
        if wanted == DICOM_XML:
            return self._xml(by_series, base)
        if len(by_series) == 1:
            return Response(b"[" + self._joined(by_series[0], base) + b"]", headers={"Content-Type": DICOM_JSON})
        pieces: list[Piece] = [b"["]
        for at, group in enumerate(by_series):
            comma = b"," if at else b""
            pieces.append(Made(lambda group=group, comma=comma: comma + self._joined(group, base)))  # type: ignore[misc] # bound now
        return PieceResponse([*pieces, b"]"], DICOM_JSON)

    def _xml(self, by_series: Sequence[Sequence[StoredObject]], base: str) -> Response:
        boundary = new_boundary()

        def parts(group: Sequence[StoredObject]) -> bytes:
            return xml_parts(orjson.loads(b"[" + self._joined(group, base) + b"]"), boundary)

        pieces: list[Piece] = [Made(lambda group=group: parts(group)) for group in by_series]  # type: ignore[misc] # bound now
        return PieceResponse([*pieces, closing(boundary)], multipart_type(boundary))

    def prepare(self, objects: Sequence[StoredObject]) -> None:
        """Make what is not there yet of objects of one series."""
        self._bodies(objects)

    def _joined(self, objects: Sequence[StoredObject], base: str) -> bytes:
        """Return the models of objects of one series, with the addresses of this client's server."""
        bodies = zip(objects, self._bodies(objects), strict=True)
        return b",".join(
            body.replace(_SHORT_MARK, b'"BulkDataURI":"' + _json_text(object_url(base, one))) for one, body in bodies
        )

    def _bodies(self, objects: Sequence[StoredObject]) -> list[bytes]:
        pack = self._pack(objects[0])
        known = _read_pack(pack)
        keys = [_key(one) for one in objects]
        if all(key in known for key in keys):
            return [known[key] for key in keys]
        with self._locks[zlib.crc32(pack.name.encode()) % _LOCKS]:
            known |= _read_pack(pack)
            missing = [one for one in objects if _key(one) not in known]
            remembered = Remembered()
            read = {_key(one): self._read(one, remembered) for one in missing}
            known |= {key: body for key, body in read.items() if body is not None}
            if missing:
                _write_pack(pack, known)
        return [known.get(_key(one)) or orjson.dumps(_uids_alone(one)) for one in objects]

    def _pack(self, one: StoredObject) -> Path:
        name = hashlib.sha256(f"{one.study_instance_uid} {one.series_instance_uid}".encode()).hexdigest()
        return self._store.data_dir / "cache" / "metadata" / name[:2] / f"{name}.pack"

    def _read(self, one: StoredObject, remembered: Remembered) -> bytes | None:
        """Return the model of an object; of a file that cannot be parsed, the UIDs; None where the disk fails."""
        path = self._store.files.local(one.path)
        try:
            model = read_json(path, remembered)
        except OSError as error:
            log.error("metadata.file_missing", file=path.name, errno=error.errno)
            return None
        except MALFORMED as error:
            log.error("metadata.unreadable", file=path.name, error=type(error).__name__)
            model = _uids_alone(one)
        try:
            body = orjson.dumps(model)
        except TypeError:  # text that is no Unicode, or whole numbers of more than 64 bits
            log.error("metadata.unreadable", file=path.name, error="TypeError")
            body = orjson.dumps(_uids_alone(one))
        return body.replace(_MARK, _SHORT_MARK)


def _uids_alone(one: StoredObject) -> dict[str, JsonElement]:
    tags = {
        "00080016": one.sop_class_uid,
        "00080018": one.sop_instance_uid,
        "0020000D": one.study_instance_uid,
        "0020000E": one.series_instance_uid,
    }
    return {tag: {"vr": "UI", "Value": [uid]} for tag, uid in tags.items()}


def _json_text(text: str) -> bytes:
    return orjson.dumps(text)[1:-1]


def _key(one: StoredObject) -> bytes:
    return f"{one.path}:{one.size_bytes}".encode()


def _read_pack(pack: Path) -> dict[bytes, bytes]:
    """Return the models of a pack by key; a line that a crash left torn does not count."""
    try:
        content = pack.read_bytes()
    except OSError:
        return {}
    return dict(_lines(content))


def _lines(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    for line in content.split(b"\n"):
        parts = line.split(b" ", 2)
        if len(parts) == _LINE_PARTS and parts[1] == b"%08x" % zlib.crc32(parts[2]):
            yield parts[0], parts[2]


def _write_pack(pack: Path, known: dict[bytes, bytes]) -> None:
    """Replace a pack; where the disk is full or closed to us, the next request reads the files again."""
    making = pack.with_name(f"{pack.name}.{uuid.uuid4().hex}")
    try:
        pack.parent.mkdir(parents=True, exist_ok=True)
        with making.open("xb") as file:
            for key, body in known.items():
                file.write(b"%b %08x %b\n" % (key, zlib.crc32(body), body))
        making.replace(pack)
    except OSError as error:
        log.warning("metadata.not_cached", errno=error.errno, code=os.strerror(error.errno or 0))
        with contextlib.suppress(OSError):
            making.unlink(missing_ok=True)
