"""An application that asks who calls: tokens, clients and their keys, results of two patients."""

from __future__ import annotations

import json
import uuid
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import sqlalchemy as sa
from fhir_facade.app import create_app as create_fhir_app
from joserfc import jwt
from joserfc.jwk import ECKey

from gateway.services import Counters
from gateway.store import Store
from gateway.store.access import Grant, add_token, new_token
from gateway.store.access_clients import SmartClient, add_client
from gateway.store.tables import fhir_resource
from gateway.web import HttpParts, create_app
from gateway.web.auth import Access
from tests.unit.fhir import cases
from tests.unit.web.serving import served

PUBLIC = "https://gateway.example"
TOKEN_URL = f"{PUBLIC}/oauth/token"
CLIENT_KEY = ECKey.generate_key("P-384", {"kid": "k1"})
OTHER_STUDY = "1.2.826.0.1.3680043.8.498.2"


def now_s() -> int:
    """Return the time as claims have it."""
    return int(datetime.now(UTC).timestamp())


def serving(store: Store, access: Access | None = None, **values: Any) -> AbstractContextManager[httpx.Client]:
    """Serve with tokens; `values` replace parts."""
    parts = {
        "store": store,
        "fhir": create_fhir_app(store, zone=UTC),
        "access": access or Access("token", public_url=PUBLIC),
        "counters": Counters(),
        "reserve_bytes": 0,
    }
    return served(create_app(HttpParts(**parts | values)))


def made_token(store: Store, name: str, *roles: str, days: float = 1, **values: Any) -> dict[str, str]:
    """Make a token; give the header that shows it."""
    token, now = new_token("token"), datetime.now(UTC)
    grant = Grant("token", name, roles, values.get("scopes"), values.get("patient"), now + timedelta(days=days))
    with store.write() as connection:
        add_token(connection, token, grant, now)
    return {"Authorization": f"Bearer {token}"}


def register(store: Store, client_id: str, *scopes: str, **values: Any) -> None:
    """Register a client with CLIENT_KEY; `values` replace fields."""
    keys = {"keys": [CLIENT_KEY.as_dict(private=False)]}
    client = SmartClient(client_id, client_id, scopes, None, keys, None, datetime.now(UTC))
    with store.write() as connection:
        add_client(connection, replace(client, **values))


def assertion(client_id: str, *, key: Any = CLIENT_KEY, alg: str = "ES384", **changed: Any) -> str:
    """Return what a client proves itself by; `changed` replaces claims, None leaves one out."""
    now = now_s()
    claims = {"iss": client_id, "sub": client_id, "aud": TOKEN_URL, "exp": now + 240, "jti": str(uuid.uuid4())}
    kept = {name: value for name, value in (claims | changed).items() if value is not None}
    return jwt.encode({"alg": alg, "kid": key.kid}, kept, key, algorithms=[alg])


def ask_token(client: httpx.Client, shown: str, scope: str, **changed: str) -> httpx.Response:
    """Ask for an access token; `changed` replaces fields."""
    form = {
        "grant_type": "client_credentials",
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        "client_assertion": shown,
        "scope": scope,
    }
    return client.post("/oauth/token", data=form | changed)


def smart(client: httpx.Client, client_id: str, scope: str) -> dict[str, str]:
    """Return the header of a client that got these scopes."""
    answer = ask_token(client, assertion(client_id), scope)
    assert answer.status_code == 200, answer.text
    return {"Authorization": f"Bearer {answer.json()['access_token']}"}


def two_patients(store: Store) -> tuple[str, str]:
    """Write results of two patients; return the ids of their Patient resources."""
    other = cases.study(study_instance_uid=OTHER_STUDY, patient_id="P-18", patient_name="Stranger^Sam")
    cases.commit(store, cases.finished(cases.pneumonia()))
    cases.commit(store, cases.finished(cases.pneumonia(), bundle="other", study=other))
    return _patient(store, cases.STUDY_UID), _patient(store, OTHER_STUDY)


def ids(bundle: dict[str, Any]) -> set[str]:
    """Return type and id of everything in a Bundle."""
    return {f"{each['resource']['resourceType']}/{each['resource']['id']}" for each in bundle.get("entry", ())}


def types(bundle: dict[str, Any]) -> set[str]:
    """Return the types of everything in a Bundle."""
    return {each.partition("/")[0] for each in ids(bundle)}


def _patient(store: Store, study_uid: str) -> str:
    those = (fhir_resource.c.type == "DiagnosticReport", fhir_resource.c.study_instance_uid == study_uid)
    with store.read() as connection:
        body = connection.scalars(sa.select(fhir_resource.c.body).where(*those)).one()
    reference: str = json.loads(body)["subject"]["reference"]
    return reference.partition("/")[2]
