"""Every request that reads or changes something of patients -> the audit trail; and every one that was refused.

What one caller does to the same thing again within a minute is told once: a viewer fetches a study in hundreds of
requests, a worklist looks again and again.
"""

from __future__ import annotations

import hashlib
import math
import re
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import unquote

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.audit import codes
from gateway.audit.acts import ourselves
from gateway.audit.codes import Code
from gateway.audit.event import Action, AuditEvent, Entity, Kind, Outcome, Participant
from gateway.audit.trail import record
from gateway.web.caller import Caller

_AGAIN_AFTER_S = 60.0
_MOST_REMEMBERED = 10_000
_DIGEST_BYTES = 16
_LONGEST_BODY = 16384
_UID = re.compile(r"[0-9.]{1,64}")
_SILENT = frozenset({"", "healthz", "readyz", "metrics", "assets", "preferences", "viewer", ".well-known", "auth"})
"""First parts of addresses that show nothing of a patient; the viewer's files fetch theirs by DICOMweb."""
_WRITES: dict[str, Action] = {"POST": "C", "PUT": "U", "PATCH": "U", "DELETE": "D"}
_REFUSED = frozenset({401, 403, 421})
_CLIENT_ERROR, _SERVER_ERROR = 400, 500
_ACTIONS = {"verify": codes.VERIFICATION, "reprocess": codes.REPROCESSING}


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request was about."""

    kind: Kind
    action: Action
    entities: tuple[Entity, ...] = ()
    types: tuple[Code, ...] = ()


class AuditMiddleware:
    """Records requests once they are answered; stands around the check of access, so that refusals are seen.

    Parameters
    ----------
    ae_title
        Ours.
    clock
        Monotonic, in seconds.
    """

    def __init__(self, app: ASGIApp, ae_title: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._app = app
        self._ae_title = ae_title
        self._clock = clock
        self._told: OrderedDict[bytes, float] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = _SERVER_ERROR
        body = bytearray()
        is_posted_search = scope["path"].endswith("/_search")

        async def receive_and_keep() -> Message:
            message = await receive()
            if is_posted_search and len(body) < _LONGEST_BODY:
                body.extend(message.get("body", b"")[: _LONGEST_BODY - len(body)])
            return message

        async def send_and_look(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive_and_keep, send_and_look)
        finally:
            self._tell(scope, status, bytes(body))

    def _tell(self, scope: Scope, status: int, body: bytes) -> None:
        query = "&".join(part.decode("utf-8", "replace") for part in (scope.get("query_string", b""), body) if part)
        asked = understand(scope["method"], scope["path"], unquote(query.replace("+", " ")), status)
        if asked is None:
            return
        caller: Caller | None = scope.get("state", {}).get("caller")
        client = scope.get("client")
        address = client[0] if client else ""
        who = caller.name if caller is not None else "anonymous"
        outcome = _outcome(status)
        if not self._is_first(who, address, asked, outcome):
            return
        participants = (
            Participant(who, True, codes.SOURCE, address, caller.kind if caller is not None else ""),
            ourselves(self._ae_title, role=codes.DESTINATION),
        )
        reason = f"HTTP {status}" if outcome else ""
        record(AuditEvent(asked.kind, asked.action, participants, asked.entities, asked.types, outcome, reason))

    def _is_first(self, *key: object) -> bool:
        """Say whether this was not told within the last minute; kept as digests, for what is asked may be long."""
        digest, now = hashlib.blake2b(repr(key).encode(), digest_size=_DIGEST_BYTES).digest(), self._clock()
        if now - self._told.get(digest, -math.inf) < _AGAIN_AFTER_S:
            return False
        self._told[digest] = now
        self._told.move_to_end(digest)
        while len(self._told) > _MOST_REMEMBERED or now - next(iter(self._told.values())) >= _AGAIN_AFTER_S:
            self._told.popitem(last=False)
        return True


def understand(method: str, path: str, query: str, status: int) -> Asked | None:
    """Return what a request was about; None where that is nothing of patients and nothing was refused (pure)."""
    parts = [part for part in path.split("/") if part] or [""]
    if parts[0] in {"login", "logout", "oauth"}:
        return _sign_in(parts, method)
    if status in _REFUSED:
        what = Entity("resource", "/".join(parts[:3]))
        return Asked(Kind.SECURITY_ALERT, "E", (what,), (codes.RESTRICTED_FUNCTION,))
    if parts[0] in _SILENT or method == "OPTIONS":
        return None
    return _READERS.get(parts[0], _other)(method, parts, query)


def _sign_in(parts: list[str], method: str) -> Asked | None:
    """Return a sign-in by token, by an OpenID Connect provider or of a program; what only shows the form is none."""
    if method != "POST" and parts[-1] != "callback":
        return None
    return Asked(Kind.USER_AUTHENTICATION, "E", (), (codes.LOGOUT if parts[0] == "logout" else codes.LOGIN,))


def _fhir(method: str, parts: list[str], query: str) -> Asked | None:
    parts = parts[1:]
    if not parts:
        return Asked(Kind.QUERY, "E", (Entity("search", "fhir", query),))
    if parts[0] in {"metadata", ".well-known"}:
        return None
    name = "/".join(parts)
    if parts[0] == "AuditEvent":
        return Asked(Kind.AUDIT_LOG_USED, "R", (Entity("audit-log", f"fhir/{name}"), Entity("search", name, query)))
    if any(part.startswith("$") for part in parts):
        kind = Kind.EXPORT if parts[-1].startswith("$export") else Kind.PATIENT_RECORD
        return Asked(kind, "R", (Entity("resource", name), *((Entity("search", name, query),) if query else ())))
    if parts[-1] == "_search" or (method in {"GET", "HEAD"} and len(parts) == 1):
        return Asked(Kind.QUERY, "E", (Entity("search", f"fhir/{parts[0]}", query),))
    return Asked(Kind.PATIENT_RECORD, _WRITES.get(method, "R"), (Entity("resource", name),))


def _dicomweb(method: str, parts: list[str], query: str) -> Asked | None:
    parts = parts[1:]
    if not parts:
        return None
    if parts[0] == "workitems":
        return _workitem(method, parts, query)
    study = (Entity("study", parts[1]),) if parts[0] == "studies" and _has_uid(parts) else ()
    if method in {"GET", "HEAD"}:
        if parts[-1] in {"studies", "series", "instances"}:
            return Asked(Kind.QUERY, "E", (*study, Entity("search", "/".join(parts), query)))
        is_shown = parts[-1] in {"metadata", "rendered", "thumbnail"}
        return Asked(Kind.INSTANCES_ACCESSED if is_shown else Kind.INSTANCES_TRANSFERRED, "R", study)
    if method == "POST":  # what came is told with the association that the index keeps of it
        return Asked(Kind.BEGIN_TRANSFERRING, "E", study)
    return Asked(Kind.INSTANCES_ACCESSED, _WRITES.get(method, "U"), study)


def _workitem(method: str, parts: list[str], query: str) -> Asked:
    if method == "GET" and len(parts) == 1:
        return Asked(Kind.QUERY, "E", (Entity("search", "workitems", query),))
    return Asked(Kind.PROCEDURE_RECORD, _WRITES.get(method, "R"), (Entity("resource", "/".join(parts)),))


def _worklist(_method: str, _parts: list[str], query: str) -> Asked:
    return Asked(Kind.QUERY, "E", (Entity("search", "worklist", query),))


def _other(method: str, parts: list[str], _query: str) -> Asked:
    return Asked(Kind.INSTANCES_ACCESSED, _WRITES.get(method, "R"), (Entity("resource", "/".join(parts)),))


def _study_page(method: str, parts: list[str], _query: str) -> Asked:
    parts = parts[1:] or [""]
    study = (Entity("study", parts[0]),) if _UID.fullmatch(parts[0]) else ()
    if method in {"GET", "HEAD"}:
        return Asked(Kind.INSTANCES_ACCESSED, "R", study)
    act = _ACTIONS.get(parts[1]) if len(parts) > 1 else None
    return Asked(Kind.PROCEDURE_RECORD, "U", study, (act,) if act is not None else ())


def _has_uid(parts: list[str]) -> bool:
    return len(parts) > 1 and _UID.fullmatch(parts[1]) is not None


def _outcome(status: int) -> int:
    if status >= _SERVER_ERROR:
        return Outcome.SERIOUS_FAILURE
    return Outcome.MINOR_FAILURE if status >= _CLIENT_ERROR else Outcome.SUCCESS


_READERS: dict[str, Callable[[str, list[str], str], Asked | None]] = {
    "fhir": _fhir,
    "dicomweb": _dicomweb,
    "studies": _study_page,
    "worklist": _worklist,
}
"""First part of an address -> who understands it."""
