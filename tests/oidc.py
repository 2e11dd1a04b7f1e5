"""A real OpenID Connect provider (npm: oidc-provider), and a person who signs in there."""

from __future__ import annotations

import json
import re
import secrets
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urljoin

import httpx

from tests.services.process import HANGS_S, LOOPBACK, free_port
from tests.unit.fhir import node

CLIENT = "worklist"
PROGRAM = "program"
AUDIENCE = "hybridmed"
_FORM_ACTION = re.compile(r'action="([^"]+)"')
_MOST_STEPS = 12


@dataclass(frozen=True)
class RunningProvider:
    """A provider that answers at `issuer`."""

    issuer: str
    secret: str

    def access_token(self) -> str:
        """Return an access token of the program."""
        auth = (PROGRAM, self.secret)
        answer = httpx.post(
            f"{self.issuer}/token", data={"grant_type": "client_credentials"}, auth=auth, timeout=HANGS_S
        )
        token: str = answer.json()["access_token"]
        return token

    def sign_in(self, address: str, person: str, redirect_uri: str) -> str:
        """Sign in as a person does, from the address to which a gateway leads; return the address that leads back."""
        with httpx.Client(timeout=HANGS_S) as browser:
            answer = browser.get(address)
            for _ in range(_MOST_STEPS):
                onward = answer.headers.get("location")
                if onward is not None and onward.startswith(redirect_uri):
                    return str(onward)
                if onward is not None:
                    answer = browser.get(urljoin(str(answer.url), onward))
                    continue
                form = _FORM_ACTION.search(answer.text)
                assert form is not None, answer.text[:500]
                prompt = "login" if 'name="login"' in answer.text else "consent"
                filled = {"prompt": prompt, "login": person, "password": "any"}
                answer = browser.post(urljoin(str(answer.url), form[1]), data=filled)
        raise AssertionError("the provider did not lead back")


@contextmanager
def running_provider(redirect_uri: str, roles: Mapping[str, Sequence[str]]) -> Iterator[RunningProvider]:
    """Run a provider that gives these roles to these persons and programs."""
    node.install()
    issuer = f"http://{LOOPBACK}:{free_port()}"
    secret = secrets.token_urlsafe(16)
    command = ["node", "provider.mjs", issuer, redirect_uri, secret, json.dumps(roles)]
    process = subprocess.Popen(command, cwd=node.FOLDER, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait(process, issuer)
        yield RunningProvider(issuer, secret)
    finally:
        process.kill()
        process.wait()


def _wait(process: subprocess.Popen[bytes], issuer: str) -> None:
    deadline = time.monotonic() + HANGS_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            httpx.get(f"{issuer}/jwks")
        except httpx.HTTPError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError("the OpenID Connect provider did not start")
