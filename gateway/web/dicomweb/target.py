"""What a path names: UIDs checked, objects located, and why there are none."""

from __future__ import annotations

from dataclasses import fields

from sqlalchemy.engine import Connection
from starlette.exceptions import HTTPException
from starlette.requests import Request

from gateway.errors import CannotUnderstandError
from gateway.header import valid_uid
from gateway.query import StoredObject, locate
from gateway.store import Store
from gateway.store.rejections import find_hidden_note, is_rejected

_LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]", "::1"})
_NOTE_MODALITY = "KO"
_NAMES = {"study": "Study Instance UID", "series": "Series Instance UID", "instance": "SOP Instance UID"}
_COLUMNS = {"study": "study_instance_uid", "series": "series_instance_uid", "instance": "sop_instance_uid"}


def uids(request: Request) -> dict[str, str]:
    """Return the UIDs of the path by column; HTTPException 400 where one is none."""
    given: dict[str, str] = {}
    for name, column in _COLUMNS.items():
        if name in request.path_params:
            try:
                given[column] = valid_uid(request.path_params[name], _NAMES[name])
            except CannotUnderstandError as error:
                raise HTTPException(400, f"the path's {error.comment}") from error
    return given


def located(store: Store, request: Request) -> list[StoredObject]:
    """Return the objects that the path names; HTTPException 404 where there are none, 410 where they are rejected."""
    given = uids(request)
    with store.read() as connection:
        found = locate(connection, **given)
        return found or _absent(connection, given)


def _absent(connection: Connection, given: dict[str, str]) -> list[StoredObject]:
    """Return a rejection note that is asked for by its own UID, for it is listed nowhere where all else is rejected."""
    if "sop_instance_uid" in given:
        row = find_hidden_note(connection, **given)
        if row is not None:
            names = {field.name for field in fields(StoredObject)} & row._mapping.keys()
            known = {name: row._mapping[name] for name in names}
            return [StoredObject(**known, modality=_NOTE_MODALITY, is_result=False)]
    if is_rejected(connection, **given):
        raise HTTPException(410, f"the {_level(given)} has been rejected and is no longer shown")
    raise HTTPException(404, f"there is no such {_level(given)}")


def _level(given: dict[str, str]) -> str:
    return "instance" if "sop_instance_uid" in given else "series" if "series_instance_uid" in given else "study"


def base_url(request: Request) -> str:
    """Return the root of the DICOMweb services as this client reaches it.

    dicomweb-client leaves the port out of its Host. On the loopback, where no proxy stands between, ours is put in.
    """
    root = request.scope.get("root_path", "").rstrip("/")
    host = request.url.netloc
    server = request.scope.get("server")
    if host in _LOOPBACK and server is not None and server[0] in _LOOPBACK and server[1] not in {None, 80, 443}:
        host = f"{host}:{server[1]}"
    return f"{request.url.scheme}://{host}{root}"


def object_url(base: str, one: StoredObject) -> str:
    """Return the address of an object."""
    return f"{base}/studies/{one.study_instance_uid}/series/{one.series_instance_uid}/instances/{one.sop_instance_uid}"
