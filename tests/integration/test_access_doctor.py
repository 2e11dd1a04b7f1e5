"""What `doctor` says of access: nobody let in, tokens about to end, providers away, certificates that do not fit."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from gateway.access_state import look_at_access
from gateway.config import load_settings
from gateway.store import Store
from tests.access import made_token
from tests.certificates import Authority


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYBRIDMED_CONFIG", os.devnull)


def verdicts(store: Store, **settings: Any) -> dict[str, tuple[str, str]]:
    """Return verdict and sentence of each part."""
    return {each.part: (each.verdict, each.found) for each in look_at_access(load_settings(**settings), store)}


def test_tokens(sqlite_store: Store) -> None:
    """None at all, some, and some that end soon, which are named; the tokens are not."""
    assert verdicts(sqlite_store, auth="token")["tokens"][0] == "warning"
    assert verdicts(sqlite_store, auth="token", tokens=("ab" * 32,))["tokens"][0] == "ok"
    made_token(sqlite_store, "lasting", "viewer", days=90)
    assert verdicts(sqlite_store, auth="token")["tokens"] == ("ok", "1 tokens in use, and 0 of the settings")
    token = made_token(sqlite_store, "ending", "viewer", days=3)["Authorization"].partition(" ")[2]
    verdict, found = verdicts(sqlite_store, auth="token")["tokens"]

    assert (verdict, "within two weeks end ending" in found) == ("warning", True)
    assert token not in found
    assert verdicts(sqlite_store) == {"access": ("ok", "none: whoever is on this machine")}


def test_the_provider_and_the_certificate(sqlite_store: Store, tmp_path: Path) -> None:
    """A provider that does not answer, a certificate that ends soon, and a key of another."""
    authority = Authority(tmp_path)
    one, two = authority.issue("one"), authority.issue("two")
    oidc = {"issuer": "http://127.0.0.1:9", "client_id": "x", "client_secret": "secret-word"}

    found = verdicts(sqlite_store, auth="oidc", oidc=oidc, tls={"certificate": one.certificate, "key": one.key})
    unfit = verdicts(sqlite_store, tls={"certificate": one.certificate, "key": two.key})

    assert found["OpenID Connect"] == ("failed", "http://127.0.0.1:9: ConnectError")
    assert found["certificate"][0] == "warning"
    assert "hybrid" in found["certificate"][1] or "MLKEM" in found["certificate"][1]
    assert unfit["certificate"][0] == "failed"
    assert "secret-word" not in str(found)
