"""UPS-RS (PS3.18 chapter 11): workitems created, read, searched, claimed, changed, cancelled, subscribed to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import orjson
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from gateway.web.dicomweb.multipart import new_boundary
from gateway.web.dicomweb.native_xml import multipart_type, native_xml, xml_message
from gateway.web.dicomweb.negotiation import DICOM_JSON, DICOM_XML, chosen_model
from gateway.web.dicomweb.target import base_url
from gateway.workitem.keys import search_of_parameters
from gateway.workitem.mapping import Origin
from gateway.workitem.model import read_content, text_of
from gateway.workitem.refusal import Refusal, WorkitemError
from gateway.workitem.state import FILTERED, Content, StepState
from gateway.workitem.subscribing import read_ae_title
from gateway.workitem.worklist import Worklist

_TAKEN = (DICOM_JSON, "application/json")
_BODY_LIMIT = 1 << 20
_TRANSACTION = ("transaction", "transaction-uid", "transactionuid")
"""How clients write the parameter of an update; the standard's own text leaves its name open, so the UID alone does."""
_WEB_SOCKETS = {"https": "wss", "http": "ws"}


def routes(worklist: Worklist) -> list[BaseRoute]:
    """Return the routes of UPS-RS, the web socket aside."""
    service = _UpsRs(worklist)
    one, subscriber = "/workitems/{workitem}", "/workitems/{workitem}/subscribers/{subscriber}"
    table: Sequence[tuple[str, str, _Step]] = (
        ("/workitems", "POST", service.create),
        ("/workitems", "GET", service.search),
        (one, "GET", service.retrieve),
        (one, "POST", service.update),
        (f"{one}/state", "PUT", service.change_state),
        (f"{one}/cancelrequest", "POST", service.request_cancel),
        (subscriber, "POST", service.subscribe),
        (subscriber, "DELETE", service.unsubscribe),
        (f"{subscriber}/suspend", "POST", service.suspend),
    )
    return [Route(path, _told(step), methods=[method]) for path, method, step in table]


class _UpsRs:
    def __init__(self, worklist: Worklist) -> None:
        self._workitems = worklist.workitems
        self._subscribing = worklist.subscribing
        self._ae_title = worklist.ae_title

    async def create(self, request: Request) -> Response:
        """`POST /workitems?workitem=UID`: 201; 400, 409 where it exists or its study is not held (11.4)."""
        uid = next((value for name, value in request.query_params.items() if _is_workitem(name)), None)
        content = await _content(request)
        created = await run_in_threadpool(self._workitems.create, content, uid or _own_uid(content))
        address = f"{base_url(request)}/workitems/{created.uid}"
        headers = {"Location": address, "Content-Location": address}
        if created.is_modified:
            headers["Warning"] = _warning(request, "The Workitem was created with modifications.")
        return Response(status_code=201, headers=headers)

    async def retrieve(self, request: Request) -> Response:
        """`GET /workitems/UID`: 200; 404 (11.5)."""
        media_type = chosen_model(request)
        content = await run_in_threadpool(self._workitems.retrieve, _uid(request), self._origin(request))
        if media_type == DICOM_XML:
            return Response(native_xml(content), media_type=DICOM_XML)
        return _json([content], media_type)

    async def search(self, request: Request) -> Response:
        """`GET /workitems?…`: 200, 206 where there are more, 204 where there is none; 400 (11.9)."""
        media_type = chosen_model(request)
        search = search_of_parameters(request.query_params.multi_items())
        found = await run_in_threadpool(self._workitems.search, search, self._origin(request))
        if not found.workitems:
            return Response(status_code=204)
        answer = _listed(found.workitems, media_type, 206 if found.has_more else 200)
        if found.has_more:
            answer.headers["Warning"] = _warning(request, "There are additional results that can be requested.")
        return answer

    async def update(self, request: Request) -> Response:
        """`POST /workitems/UID?transaction=UID`: 200; 400, 404, 409 (11.6)."""
        content = await _content(request)
        transaction_uid = _transaction(request) or text_of(content, "TransactionUID") or None
        await run_in_threadpool(self._workitems.update, _uid(request), content, transaction_uid)
        return Response(headers={"Content-Location": f"{base_url(request)}/workitems/{_uid(request)}"})

    async def change_state(self, request: Request) -> Response:
        """`PUT /workitems/UID/state`: 200, with a warning where it was so already; 400, 404, 409 (11.7)."""
        content = await _content(request)
        transaction_uid = text_of(content, "TransactionUID") or None
        state = text_of(content, "ProcedureStepState")
        already = await run_in_threadpool(self._workitems.change_state, _uid(request), state, transaction_uid)
        return _done(request, 200, already)

    async def request_cancel(self, request: Request) -> Response:
        """`POST /workitems/UID/cancelrequest`: 202, with a warning where it was so already; 400, 404, 409 (11.8)."""
        content = await _content(request, may_be_empty=True)
        requester = read_ae_title(request.query_params.get("requester", self._ae_title))
        already = await run_in_threadpool(self._workitems.request_cancel, _uid(request), content, requester)
        return _done(request, 202, already)

    async def subscribe(self, request: Request) -> Response:
        """`POST …/subscribers/AE?deletionlock=true`: 201 with the web socket's address; 400, 404 (11.10)."""
        uid, subscriber = _uid(request), request.path_params["subscriber"]
        parameters = [each for each in request.query_params.multi_items() if each[0].lower() != "deletionlock"]
        lock = request.query_params.get("deletionlock", "false").lower() == "true"
        keys: Mapping[str, str] = search_of_parameters(parameters).keys if uid == FILTERED else {}

        def subscribe() -> None:
            self._subscribing.subscribe(uid, subscriber, lock=lock, keys=keys, by_websocket=True)

        await run_in_threadpool(subscribe)
        scheme, _, rest = base_url(request).partition("://")
        address = f"{_WEB_SOCKETS.get(scheme, 'ws')}://{rest}/subscribers/{subscriber}"
        return Response(status_code=201, headers={"Content-Location": address})

    async def unsubscribe(self, request: Request) -> Response:
        """`DELETE …/subscribers/AE`: 200; 400, 404 (11.11)."""
        await run_in_threadpool(self._subscribing.unsubscribe, _uid(request), request.path_params["subscriber"])
        return Response()

    async def suspend(self, request: Request) -> Response:
        """`POST …/subscribers/AE/suspend`: 200; 400, 404 (11.12)."""
        await run_in_threadpool(self._subscribing.suspend, _uid(request), request.path_params["subscriber"])
        return Response()

    def _origin(self, request: Request) -> Origin:
        return Origin(self._ae_title, base_url(request))


_Step = Callable[[Request], Awaitable[Response]]


def _told(step: _Step) -> _Step:
    """Say what is refused: the status and Warning of the standard, and a sentence."""

    async def answer(request: Request) -> Response:
        try:
            return await step(request)
        except WorkitemError as error:
            refusal = error.refusal
            body = orjson.dumps({"error": str(error)})
            headers = {"Warning": _warning(request, refusal.phrase)}
            return Response(body, refusal.http_status, headers, "application/json")

    return answer


def _done(request: Request, status: int, already: StepState | None) -> Response:
    if already is None:
        return Response(status_code=status)
    phrase = f"The UPS is already in the requested state of {already}."
    return Response(status_code=status, headers={"Warning": _warning(request, phrase)})


def _warning(request: Request, phrase: str) -> str:
    return f"299 {base_url(request)}: {phrase}"


def _listed(contents: Sequence[Content], media_type: str, status: int) -> Response:
    if media_type != DICOM_XML:
        return _json(contents, media_type, status)
    boundary = new_boundary()
    return Response(xml_message(contents, boundary), status, {"Content-Type": multipart_type(boundary)})


def _json(content: Any, media_type: str, status: int = 200) -> Response:
    return Response(orjson.dumps(content), status, media_type=media_type)


def _uid(request: Request) -> str:
    uid: str = request.path_params["workitem"]
    return uid


def _is_workitem(name: str) -> bool:
    return name.lower() in {"workitem", "affectedsopinstanceuid"}


def _own_uid(content: Content) -> str | None:
    return text_of(content, "SOPInstanceUID") or None


def _transaction(request: Request) -> str | None:
    """Return the Transaction UID of the query: of a parameter, or the whole of it."""
    for name, value in request.query_params.multi_items():
        if name.lower() in _TRANSACTION:
            return value
        if not value and name:
            return name
    return None


async def _content(request: Request, *, may_be_empty: bool = False) -> Content:
    """Return the data set in the body; HTTPException 413 and 415, WorkitemError where it is none."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _BODY_LIMIT:
            raise HTTPException(413, f"a workitem has at most {_BODY_LIMIT} bytes")
    if may_be_empty and not body.strip():
        return {}
    given = request.headers.get("content-type", DICOM_JSON).partition(";")[0].strip().lower()
    if given not in _TAKEN:
        raise HTTPException(415, f"a workitem comes as {DICOM_JSON}")
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise WorkitemError(Refusal.INVALID_VALUE, "the body is not JSON") from error
    if isinstance(parsed, list):
        if len(parsed) != 1:
            raise WorkitemError(Refusal.INVALID_VALUE, "the body is one data set")
        parsed = parsed[0]
    return read_content(parsed)
