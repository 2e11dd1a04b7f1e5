"""What a client says that it accepts."""

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request

from gateway.web.dicomweb.negotiation import chosen_model


@pytest.mark.parametrize("text", [";", ",;,", ";q=1", '"'])
def test_a_range_without_a_type_accepts_nothing(text: str) -> None:
    """In the header or the address: 406 with what can be had."""
    for scope in ({"headers": [(b"accept", text.encode())], "query_string": b""}, _in_address(text)):
        with pytest.raises(HTTPException) as caught:
            chosen_model(Request({"type": "http", **scope}))
        assert caught.value.status_code == 406


def _in_address(text: str) -> dict[str, object]:
    return {"headers": [], "query_string": f"accept={text}".encode()}
