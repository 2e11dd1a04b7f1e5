"""Answers made of files, over a real socket: sent by the kernel where the connection allows it, read otherwise."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.web.dicomweb.streaming import FileSlice, Made, Piece, PieceResponse
from tests.services.process import HANGS_S, wait_until
from tests.unit.web.serving import served

LENGTH = 3_000_001
"""More than a chunk, and more than a socket's buffer takes."""


class Site:
    """Serves `pieces` at `/`, counts the answers that the kernel sent."""

    def __init__(self, folder: Path) -> None:
        self.content = os.urandom(LENGTH)
        self.file = folder / "slice"
        self.file.write_bytes(self.content)
        self.pieces: list[Piece] = []
        self.bodies = 0
        """Messages with bytes that went through the server."""
        self.url = ""

    def body(self) -> bytes:
        """Return what a client has to get."""
        return b"".join(
            piece
            if isinstance(piece, bytes)
            else piece.make()
            if isinstance(piece, Made)
            else self.content[piece.offset : piece.offset + piece.length]
            for piece in self.pieces
        )


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """Give a server of answers made of pieces."""
    made = Site(tmp_path)

    def answer(_request: Request) -> Response:
        return PieceResponse(made.pieces, "application/octet-stream")

    with served(_Counting(Starlette(routes=[Route("/", answer)]), made)) as client:
        made.url = str(client.base_url)
        yield made


class _Counting:
    def __init__(self, app: ASGIApp, site: Site) -> None:
        self._app = app
        self._site = site

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def counted(message: dict[str, object]) -> None:
            self._site.bodies += bool(message.get("body"))
            await send(message)

        await self._app(scope, receive, counted)


def test_files_arrive_as_they_are_and_none_of_their_bytes_passes_python(site: Site) -> None:
    """Heads, stretches of a file and an end, twice over one connection; a HEAD is told the length alone."""
    site.pieces = [b"head", FileSlice(site.file, 0, LENGTH), b"\r\n", FileSlice(site.file, 17, 100_000), b"end"]
    with httpx.Client(base_url=site.url, timeout=HANGS_S) as client:
        first, second, head = client.get("/"), client.get("/"), client.head("/")

    assert first.content == second.content == site.body()
    assert (int(head.headers["content-length"]), head.content) == (len(site.body()), b"")
    assert site.bodies == 0


def test_what_the_page_cache_does_not_hold_is_brought_into_it(site: Site) -> None:
    """A file that was written and forgotten comes whole."""
    with site.file.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    site.pieces = [FileSlice(site.file, 0, LENGTH)]

    assert httpx.get(site.url, timeout=HANGS_S).content == site.content


def test_a_file_system_that_the_kernel_cannot_send_from_is_read(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes are the same."""

    def refused(*_: object) -> int:
        raise OSError(errno.EINVAL, "not from here")

    monkeypatch.setattr(os, "sendfile", refused)
    site.pieces = [b"head", FileSlice(site.file, 0, LENGTH), b"end"]

    assert httpx.get(site.url, timeout=HANGS_S).content == site.body()


def test_parts_that_are_yet_to_be_made_go_through_the_server(site: Site) -> None:
    """Their length is not known before, so the answer comes in chunks."""
    site.pieces = [b"head", FileSlice(site.file, 5, LENGTH - 5), Made(lambda: b"made"), b"end"]
    answer = httpx.get(site.url, timeout=HANGS_S)

    assert answer.content == site.body()
    assert "content-length" not in answer.headers
    assert site.bodies > 1


def test_a_slow_reader_gets_everything(site: Site) -> None:
    """The sender waits for it; another request is answered meanwhile."""
    site.pieces = [FileSlice(site.file, 0, LENGTH)] * 4
    with socket.create_connection(_address(site)) as slow:
        slow.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        begun = slow.recv(100)
        assert len(httpx.get(site.url, timeout=HANGS_S).content) == 4 * LENGTH
        received = bytearray(begun)
        while data := slow.recv(1 << 16):
            received += data

    assert received.partition(b"\r\n\r\n")[2] == site.body()


def test_a_file_that_became_shorter_cuts_the_connection(site: Site) -> None:
    """The length was announced: a client must not take the half for the whole."""
    site.pieces = [FileSlice(site.file, 0, LENGTH), b"end"]
    os.truncate(site.file, LENGTH // 2)

    with pytest.raises(httpx.RemoteProtocolError):
        httpx.get(site.url, timeout=HANGS_S)


def test_a_client_that_goes_is_let_go(site: Site) -> None:
    """Its descriptors are closed, those of the file and of the socket, and the server serves on."""
    site.pieces = [FileSlice(site.file, 0, LENGTH)] * 20
    for is_reset in (True, False):
        leaving = socket.create_connection(_address(site))
        leaving.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        leaving.recv(1000)
        if not is_reset:
            leaving.shutdown(socket.SHUT_WR)
        leaving.close()

    wait_until(
        lambda: not any(_target(link) == str(site.file) for link in _descriptors()), HANGS_S, "the file is closed"
    )
    site.pieces = [b"on"]
    assert httpx.get(site.url, timeout=HANGS_S).content == b"on"


def _address(site: Site) -> tuple[str, int]:
    url = httpx.URL(site.url)
    return url.host, url.port or 0


def _descriptors() -> list[Path]:
    return list(Path("/proc/self/fd").iterdir())


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except OSError:
        return ""
