"""What a request that changes something has to prove."""

from __future__ import annotations

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request

from gateway.web.session import require_same_origin
from gateway.web.sign_in import own_address

SESSION = "hybridmed_session=" + "a" * 43


def posted(*, is_bearer: bool = False, **headers: str) -> Request:
    """Return a POST with headers; `_` in a name stands for `-`."""
    given = {"host": "127.0.0.1:8080"} | {name.replace("_", "-"): value for name, value in headers.items()}
    raw = [(name.encode(), value.encode()) for name, value in given.items()]
    scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": raw, "state": {}}
    request = Request(scope)
    request.state.is_bearer = is_bearer
    return request


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "http://127.0.0.1:8080"},
        {"sec_fetch_site": "same-origin", "origin": "null"},
        {"cookie": SESSION, "origin": "https://127.0.0.1:8080"},
        {"cookie": SESSION, "sec_fetch_site": "same-origin"},
    ],
)
def test_our_own_pages_and_programs_may(headers: dict[str, str]) -> None:
    """A program without a session sends neither header; a browser sends one at least."""
    require_same_origin(posted(**headers))


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "http://127.0.0.1:8081"},
        {"origin": "http://127.0.0.1:8080.evil.example"},
        {"origin": "null"},
        {"origin": ""},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site", "origin": "http://127.0.0.1:8080"},
        {"cookie": SESSION},
    ],
)
def test_other_sites_may_not(headers: dict[str, str]) -> None:
    """Not even one on another port of the same host; a session without any proof may not either."""
    with pytest.raises(HTTPException) as refused:
        require_same_origin(posted(**headers))

    assert refused.value.status_code == 403


def test_a_bearer_token_proves_enough() -> None:
    """No browser adds one by itself."""
    require_same_origin(posted(is_bearer=True, origin="http://evil.example"))


@pytest.mark.parametrize(
    "text", ["https://evil.example", "//evil.example", "/\\evil.example", "javascript:alert(1)", "", "/a\r\nb"]
)
def test_no_one_is_led_to_another_site(text: str) -> None:
    """After the sign-in a browser goes to a page of ours."""
    assert own_address(text) == "/worklist"
    assert own_address("/studies/1.2?done=stat") == "/studies/1.2?done=stat"
