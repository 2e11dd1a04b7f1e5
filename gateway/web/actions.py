"""What a person does to a study from its page: verify, process anew, raise to STAT, send again.

Each is a POST of a form, answered by 303 back to the page with `?done=`; what does not work is told on the page itself,
with the form as it was filled. A program may send the same fields as a JSON object, and gets JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol
from urllib.parse import quote

import orjson
import structlog
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from gateway.errors import ConflictError, GatewayError
from gateway.job import Priority
from gateway.reprocess import Reprocessed
from gateway.store import Store
from gateway.store.deliveries import resend
from gateway.store.jobs import get_job
from gateway.store.urgency import raise_to_stat
from gateway.store.verifications import standing_jobs
from gateway.verification.verdict import Verdict, VerdictError, read_verdict
from gateway.web.caller import caller_of, signing_name
from gateway.web.rendering import wants_page
from gateway.web.session import read_form, require_same_origin

log = structlog.get_logger()

_JSON_LIMIT = 1 << 18
_MOST_FIELDS = 2000
_NUL = "\0"
"""PostgreSQL takes it in no text, not even to look for it."""
_Fields = Mapping[str, str]
_Answered = Mapping[str, Any]


class StudyAnswer(Protocol):
    """`gateway.web.pages.Pages.study_answer`."""

    def __call__(
        self, request: Request, study_instance_uid: str, *, error: str, status: int, filled: _Fields
    ) -> Response:
        """Return a study's page with a sentence on top."""


class MadeRevision(Protocol):
    """`gateway.verification.verify.Verified`."""

    @property
    def job_id(self) -> str:
        """Of the new revision."""

    @property
    def is_new(self) -> bool:
        """Whether it was not there before."""


@dataclass(frozen=True, slots=True)
class Doing:
    """What the actions call: wired in `gateway.wiring.actions`."""

    verify: Callable[[Verdict], MadeRevision]
    reprocess: Callable[[str, str | None, Priority], Reprocessed]
    """Study, bundle or None, priority."""


class Actions:
    """The routes.

    Parameters
    ----------
    store
        Where studies, jobs and deliveries stand.
    doing
        What needs more than the store.
    answer
        Renders the study's page where something did not work.
    now
        The clock.
    """

    def __init__(
        self,
        store: Store,
        doing: Doing,
        answer: StudyAnswer,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._doing = doing
        self._answer = answer
        self._now = now

    def routes(self) -> list[BaseRoute]:
        """Return the routes."""
        acts: Sequence[tuple[str, _Act]] = (
            ("verify", self._verify),
            ("reprocess", self._reprocess),
            ("stat", self._stat),
            ("resend", self._resend),
        )
        return [Route(f"/studies/{{uid}}/{name}", self._route(name, act), methods=["POST"]) for name, act in acts]

    def _route(self, name: str, act: _Act) -> Callable[[Request], Any]:
        async def handle(request: Request) -> Response:
            fields = await _read(request)
            if any(_NUL in value for value in fields.values()):
                raise HTTPException(400, "a field holds a NUL character")
            signed = signing_name(caller_of(request))
            if signed is not None:
                fields = {**fields, "observer": signed}  # who signed in verifies, whatever the form says
            return await run_in_threadpool(self._perform, request, name, act, fields)

        return handle

    def _perform(self, request: Request, name: str, act: _Act, fields: _Fields) -> Response:
        uid = request.path_params["uid"]
        if _NUL in uid:
            raise HTTPException(404, "no such study")
        try:
            done, answered = act(uid, fields)
        except GatewayError as error:
            # A missing study has no page, and a part that is away none that could be read.
            if error.may_pass or not wants_page(request):
                raise
            log.info("web.action_refused", action=name, error=type(error).__name__)
            return self._answer(request, uid, error=str(error), status=error.http_status, filled=fields)
        if not wants_page(request):
            return Response(orjson.dumps(answered), media_type="application/json")
        return RedirectResponse(f"/studies/{quote(uid)}?done={done}", status_code=303)

    def _verify(self, uid: str, fields: _Fields) -> tuple[str, _Answered]:
        verdict = read_verdict(fields)
        with self._store.read() as connection:
            if get_job(connection, verdict.job_id).study_instance_uid != uid:
                raise VerdictError("job_id: the job is of another study")
        made = self._doing.verify(verdict)
        return verdict.action, {"job_id": made.job_id, "is_new": made.is_new}

    def _reprocess(self, uid: str, fields: _Fields) -> tuple[str, _Answered]:
        priority: Priority = "stat" if fields.get("stat") else "routine"
        made = self._doing.reprocess(uid, fields.get("bundle") or None, priority)
        if not made.job_ids:
            raise ConflictError(made.reason or "there is nothing to process")
        return "reprocess", {"job_ids": list(made.job_ids)}

    def _stat(self, uid: str, _fields: _Fields) -> tuple[str, _Answered]:
        with self._store.write() as connection:
            return "stat", {"jobs": raise_to_stat(connection, uid, self._now())}

    def _resend(self, uid: str, fields: _Fields) -> tuple[str, _Answered]:
        with self._store.write() as connection:
            jobs = standing_jobs(connection, uid)
            count = resend(connection, jobs, self._now(), fields.get("destination") or None)
        if count == 0:
            raise ConflictError("nothing was sent yet: what waits is sent by itself")
        return "resend", {"deliveries": count}


_Act = Callable[[str, _Fields], tuple[str, _Answered]]


async def _read(request: Request) -> _Fields:
    """Return the fields of a form, or of a JSON object of strings."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        return await read_form(request)
    require_same_origin(request)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _JSON_LIMIT:
            raise HTTPException(413, f"a request has at most {_JSON_LIMIT} bytes")
    try:
        content = orjson.loads(bytes(body))
    except orjson.JSONDecodeError as error:
        raise HTTPException(400, "the request holds no JSON") from error
    if not isinstance(content, dict) or len(content) > _MOST_FIELDS:
        raise HTTPException(400, "the request holds no JSON object of fields")
    if not all(isinstance(value, str) for value in content.values()):
        raise HTTPException(400, "every field of the JSON object is a string, as in the form")
    return content
