"""Pages show what their reader may do, and who signed in verifies under the own name."""

from __future__ import annotations

import httpx

from gateway.store import Store
from gateway.verification.verdict import Verdict
from gateway.web.actions import Doing
from gateway.web.caller import LOOPBACK, Caller, signing_name
from tests.access import made_token, serving
from tests.unit.fhir import cases

STUDY = f"/studies/{cases.STUDY_UID}"
ACTIONS = ("reprocess", "stat", "verify")


class Made:
    """A revision that a verdict made."""

    job_id = "made"
    is_new = True


def test_a_page_shows_what_its_reader_may_do(sqlite_store: Store) -> None:
    """The forms of others' roles are not there; what is there works."""
    cases.commit(sqlite_store, cases.finished(cases.pneumonia()))
    verdicts: list[Verdict] = []

    def verify(verdict: Verdict) -> Made:
        verdicts.append(verdict)
        return Made()

    doing = Doing(verify=verify, reprocess=lambda *_: None)  # type: ignore[arg-type, return-value] # never called
    shown = {}
    with serving(sqlite_store, doing=doing) as client:
        for role in ("viewer", "verifier", "operator"):
            signed_in(client, sqlite_store, role)
            page = client.get(STUDY, headers={"Accept": "text/html"})
            assert page.status_code == 200
            shown[role] = {each for each in ACTIONS if f'action="{STUDY}/{each}"' in page.text}
            assert ('href="/metrics"' in page.text) == (role == "operator")
            if role == "verifier":
                assert 'value="Curie, Marie" readonly' in page.text or 'value="Curie Marie" readonly' in page.text
                form = {"form_token": page.text.split('name="form_token" value="')[1].split('"')[0]}
                job_id = page.text.split('name="job_id" value="')[1].split('"')[0]
                form |= {"job_id": job_id, "action": "accept", "observer": "Somebody^Else", "organisation": "City"}
                sent = client.post(f"{STUDY}/verify", data=form, headers={"Sec-Fetch-Site": "same-origin"})

    assert shown == {"viewer": set(), "verifier": {"verify"}, "operator": {"reprocess", "stat"}}
    assert sent.status_code == 200, sent.text
    assert [verdict.observer.name for verdict in verdicts] == ["Curie^Marie"]


def test_who_signs() -> None:
    """A person under its name, a program under its own; nobody in particular writes it by hand."""
    assert signing_name(Caller("m", "session", person="Curie^Marie")) == "Curie^Marie"
    assert signing_name(Caller("robot", "oidc")) == "robot"
    assert signing_name(LOOPBACK) is None
    assert signing_name(Caller("token-01234567", "token")) is None


def signed_in(client: httpx.Client, store: Store, role: str) -> None:
    """Sign a browser in as somebody with one role."""
    client.cookies.clear()
    name = "Curie Marie" if role == "verifier" else role
    token = made_token(store, name, role)["Authorization"].partition(" ")[2]
    assert client.post("/login", data={"token": token}).status_code == 303
