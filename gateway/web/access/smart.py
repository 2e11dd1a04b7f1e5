"""SMART Backend Services (SMART App Launch 2.2): the configuration, and the token endpoint `/oauth/token`.

A registered client shows an assertion and gets an opaque token that holds for five minutes; `hybridmed clients
register` registers it. The scopes are looked at where FHIR is served.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final
from urllib.parse import parse_qsl

import orjson
import structlog
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from gateway.errors import CredentialError
from gateway.scope import granted
from gateway.store import Store
from gateway.store.access import Grant, add_token, new_token
from gateway.store.access_clients import SmartClient
from gateway.web.access.assertion import ALGORITHMS, Assertions
from gateway.web.caller import Caller

log = structlog.get_logger()

TOKEN_PATH: Final = "/oauth/token"  # noqa: S105 # an address
_ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_LIFETIME = timedelta(minutes=5)
_LARGEST_BODY = 1 << 15
_MOST_FIELDS = 20
_NOT_KEPT = {"Cache-Control": "no-store", "Pragma": "no-cache"}


class SmartService:
    """The routes.

    Parameters
    ----------
    store
        Where tokens are kept.
    assertions
        Checks what clients prove themselves by.
    public_url
        How clients reach us: assertions are made out to the token endpoint there.
    now
        The clock.
    """

    def __init__(self, store: Store, assertions: Assertions, public_url: str, now: Callable[[], datetime]) -> None:
        self._store = store
        self._assertions = assertions
        self._public_url = public_url
        self._now = now

    def routes(self) -> list[BaseRoute]:
        """Return the routes."""
        return [
            Route("/fhir/.well-known/smart-configuration", self.configuration, methods=["GET"]),
            Route(TOKEN_PATH, self.token, methods=["POST"]),
        ]

    def configuration(self, _request: Request) -> Response:
        """`GET /fhir/.well-known/smart-configuration`: what a client needs to know."""
        content = {
            "token_endpoint": self._public_url + TOKEN_PATH,
            "token_endpoint_auth_methods_supported": ["private_key_jwt"],
            "token_endpoint_auth_signing_alg_values_supported": list(ALGORITHMS),
            "grant_types_supported": ["client_credentials"],
            "scopes_supported": ["system/*.rs", "system/*.read", "patient/*.rs", "patient/*.read"],
            "response_types_supported": [],
            "code_challenge_methods_supported": ["S256"],
            "capabilities": ["client-confidential-asymmetric", "permission-patient", "permission-v1", "permission-v2"],
        }
        return Response(orjson.dumps(content), media_type="application/json")

    async def token(self, request: Request) -> Response:
        """`POST /oauth/token`: assertion -> access token, or an error of RFC 6749, 5.2."""
        fields = await _read_form(request)
        if fields is None:
            return _refused("invalid_request", "a form is needed: application/x-www-form-urlencoded")
        if fields.get("grant_type") != "client_credentials":
            return _refused("unsupported_grant_type", "grant_type has to be client_credentials")
        if fields.get("client_assertion_type") != _ASSERTION_TYPE or "client_assertion" not in fields:
            return _refused("invalid_request", f"a client_assertion of type {_ASSERTION_TYPE} is needed")
        try:
            return await run_in_threadpool(self._give, request, fields)
        except CredentialError as error:
            request.state.note_failure(request)
            log.info("access.assertion_refused", reason=str(error))
            return _refused("invalid_client", str(error), status=401)

    def _give(self, request: Request, fields: dict[str, str]) -> Response:
        client = self._assertions.check(fields["client_assertion"], self._public_url + TOKEN_PATH)
        request.state.caller = Caller(client.id, "smart")  # the audit trail tells who came
        scopes = granted(fields.get("scope", "").split(), client.scopes)
        if not scopes:
            return _refused("invalid_scope", f"none of the scopes asked for is among {' '.join(client.scopes)}")
        content = {
            "access_token": self._make(client, scopes),
            "token_type": "bearer",
            "expires_in": int(_LIFETIME.total_seconds()),
            "scope": " ".join(sorted(scopes)),
        }
        if client.patient is not None:
            content["patient"] = client.patient
        return Response(orjson.dumps(content), media_type="application/json", headers=_NOT_KEPT)

    def _make(self, client: SmartClient, scopes: frozenset[str]) -> str:
        token, now = new_token("smart"), self._now()
        grant = Grant("smart", client.id, (), sorted(scopes), client.patient, now + _LIFETIME)
        with self._store.write() as connection:
            add_token(connection, token, grant, now)
        return token


async def _read_form(request: Request) -> dict[str, str] | None:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/x-www-form-urlencoded":
        return None
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _LARGEST_BODY:
            return None
    try:
        pairs = parse_qsl(body.decode(), max_num_fields=_MOST_FIELDS, errors="strict")
    except ValueError:
        return None
    fields = dict(pairs)
    return fields if len(fields) == len(pairs) else None  # a parameter stands once (RFC 6749, 3.2)


def _refused(error: str, text: str, status: int = 400) -> Response:
    content = {"error": error, "error_description": text}
    return Response(orjson.dumps(content), status, media_type="application/json", headers=_NOT_KEPT)
