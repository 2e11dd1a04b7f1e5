"""One HTTP exchange with another system: bounded in time and size, no redirect, no proxy of the environment."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import httpx

from gateway.errors import DeliveryError, DestinationAwayError


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes


@dataclass(frozen=True, slots=True)
class HttpClient:
    """How much another system gets of us.

    Parameters
    ----------
    timeout_s
        For a whole exchange, from the connection to the last byte.
    max_bytes
        Of an answer's body.
    trust
        Gives whom we believe to be who they say, by TLS; None: whom this machine believes.
    """

    timeout_s: float
    max_bytes: int
    trust: Callable[[], ssl.SSLContext] | None = None

    def ask(
        self, method: str, url: str, *, content: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Ask and return the answer, whatever its status.

        Raises
        ------
        DestinationAwayError
            No whole answer came in time.
        DeliveryError
            The answer is larger than the bound, or the address is none.
        """
        return asyncio.run(self._ask(method, url, content, dict(headers or {})))

    async def _ask(self, method: str, url: str, content: bytes | None, headers: Mapping[str, str]) -> Answer:
        verify = ssl.create_default_context() if self.trust is None else self.trust()
        try:
            async with (
                asyncio.timeout(self.timeout_s),  # a peer that sends a byte now and then would pass httpx's own limits
                httpx.AsyncClient(
                    timeout=self.timeout_s, trust_env=False, follow_redirects=False, verify=verify
                ) as client,
                client.stream(method, url, content=content, headers=headers) as response,
            ):
                body = bytearray()
                async for chunk in response.aiter_bytes():
                    body += chunk
                    if len(body) > self.max_bytes:
                        raise DeliveryError(f"the answer has more than {self.max_bytes} bytes")
                names = {name.lower(): value for name, value in response.headers.items()}
                return Answer(response.status_code, names, bytes(body))
        except TimeoutError as error:
            raise DestinationAwayError(f"no answer within {self.timeout_s:g} s") from error
        except httpx.InvalidURL as error:
            raise DeliveryError("the address is no URL") from error
        except httpx.HTTPError as error:
            raise DestinationAwayError(f"no answer: {type(error).__name__}") from error
