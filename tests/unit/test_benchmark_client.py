"""The benchmark's client counts every byte of an answer, however its end is marked."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.benchmarks.dicomweb.client import Connection, run

BODY = bytes(range(256)) * 20_000
FIXED = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY
UNTIL_CLOSED = b"HTTP/1.1 200 OK\r\n\r\n" + BODY
REFUSED = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


def chunked(size: int) -> bytes:
    """Write the body in chunks of this size."""
    parts = [BODY[start : start + size] for start in range(0, len(BODY), size)]
    body = b"".join(b"%x;note=1\r\n%s\r\n" % (len(part), part) for part in parts)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body + b"0\r\n\r\n"


@contextmanager
def answering(answer: bytes, keeps_open: bool = True) -> Iterator[int]:
    """Answer every request with these bytes; give the port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(peer: socket.socket) -> None:
        with peer:
            while peer.recv(65536):
                peer.sendall(answer)
                if not keeps_open:
                    return

    def accept() -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(peer,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


@pytest.fixture
def connect() -> Iterator[Callable[[int], Connection]]:
    """Give a function that makes a connection; it is closed with the test."""
    made: list[Connection] = []

    def connect(port: int) -> Connection:
        made.append(Connection(port))
        return made[-1]

    yield connect
    for connection in made:
        connection.close()


@pytest.mark.parametrize(
    "answer", [FIXED, chunked(7), chunked(4096), chunked(3_000_000)], ids=["fixed", "7", "4k", "3M"]
)
def test_two_answers_on_one_connection_are_both_whole(connect: Callable[[int], Connection], answer: bytes) -> None:
    """Nothing of the first is taken for the second."""
    with answering(answer) as port:
        connection = connect(port)

        assert [connection.ask(b"GET / HTTP/1.1\r\n\r\n") for _ in range(2)] == [len(BODY)] * 2


def test_an_answer_may_end_with_the_connection(connect: Callable[[int], Connection]) -> None:
    """The next request opens another."""
    with answering(UNTIL_CLOSED, keeps_open=False) as port:
        connection = connect(port)

        assert [connection.ask(b"GET / HTTP/1.1\r\n\r\n") for _ in range(2)] == [len(BODY)] * 2


def test_an_answer_that_is_no_success_is_a_failure() -> None:
    """A server that refuses is not measured as a fast one."""
    with answering(REFUSED) as port:
        found = run(port, 0.1, 2, b"GET / HTTP/1.1\r\n\r\n")

    assert "404" in str(found["failures"])
