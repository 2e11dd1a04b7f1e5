"""MLLP as a receiver that misbehaves answers it: each time an error that says what to do, in bounded time."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway.errors import DeliveryError, DestinationAwayError, GatewayError
from gateway.exchange.mllp import MllpAddress, send_message
from tests.certificates import Authority
from tests.exchange import mllp_listener
from tests.services.process import HANGS_S

ACK = b"\x0bMSH|^~\\&|A|B|C|D|20260101||ACK|9|P|2.5.1\rMSA|%b|%b\r%b\x1c\r"


@contextmanager
def answering(answer: Callable[[socket.socket], None]) -> Iterator[MllpAddress]:
    """Take one connection and a message on it, then answer."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        peer, _ = listener.accept()
        with peer, contextlib.suppress(OSError):  # who asked may have heard enough
            peer.recv(1 << 16)
            answer(peer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield MllpAddress("127.0.0.1", listener.getsockname()[1], None)
    finally:
        thread.join(HANGS_S)
        listener.close()


def in_pieces(peer: socket.socket) -> None:
    """Answer a byte at a time."""
    for byte in ACK % (b"AA", b"42", b""):
        peer.send(bytes([byte]))


def test_an_acknowledgement_in_pieces_is_read() -> None:
    """TCP has no messages: what counts is the frame."""
    with answering(in_pieces) as address:
        send_message(address, b"MSH|x\r", "42", HANGS_S)


@pytest.mark.parametrize(
    ("answer", "error", "text"),
    [
        (ACK % (b"AE", b"42", b"ERR||PID^1|207^Doe^Jane|E\r"), DeliveryError, "refused with AE, error 207"),
        (ACK % (b"AR", b"42", b""), DeliveryError, "refused with AR"),
        (ACK % (b"AA", b"41", b""), DestinationAwayError, "of another message"),
        (b"\x0bnonsense\x1c\r", DestinationAwayError, "no HL7 message"),
        (b"\x0bMSH|^~\\&\x1c\r", DestinationAwayError, "of another message"),
        (b"", DestinationAwayError, "closed without"),
        (b"\x0b" + b"x" * (1 << 17), DestinationAwayError, "more than"),
    ],
)
def test_other_answers_are_errors(answer: bytes, error: type[GatewayError], text: str) -> None:
    """What is refused counts, what is no answer to us is tried again; no text of the receiver is told on."""
    with answering(lambda peer: peer.sendall(answer)) as address, pytest.raises(error, match=text) as raised:
        send_message(address, b"MSH|x\r", "42", HANGS_S)

    assert "Doe" not in str(raised.value)


def test_silence_ends() -> None:
    """A receiver that never answers is away once the time is up."""
    released = threading.Event()
    with answering(lambda _: released.wait(HANGS_S) and None) as address:
        with pytest.raises(DestinationAwayError, match=r"within 0\.2 s"):
            send_message(address, b"MSH|x\r", "42", 0.2)
        released.set()


MESSAGE = b"MSH|^~\\&|HYBRIDMED|H|HIS|H|20260101||ORU^R01^ORU_R01|42|P|2.5.1\rPID|1||P-1\r"


def context(authority: Authority) -> ssl.SSLContext:
    """Return that of a receiver whose certificate an authority signed."""
    identity = authority.issue("his")
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(identity.certificate, identity.key)
    return made


def test_over_tls_another_programs_receiver_takes_it(tmp_path: Path) -> None:
    """The message arrives as it was sent; the receiver is believed by the authority that is set."""
    authority = Authority(tmp_path)
    trust = ssl.create_default_context(cafile=str(authority.certificate))
    with mllp_listener(context(authority)) as listener:
        send_message(MllpAddress("localhost", listener.port, trust), MESSAGE, "42", HANGS_S)

    (received,) = listener.received
    assert str(received).split("\r")[:2] == MESSAGE.decode().split("\r")[:2]


def test_a_receiver_that_is_not_believed_gets_nothing(tmp_path: Path) -> None:
    """Another authority's certificate, another name, or no TLS at all: away, and no byte of the message was sent."""
    ours, theirs = Authority(tmp_path / "ours"), Authority(tmp_path / "theirs", "Another Authority")
    trust = ssl.create_default_context(cafile=str(ours.certificate))
    taken: list[bytes] = []
    with mllp_listener(context(theirs)) as stranger, pytest.raises(DestinationAwayError, match="Cert"):
        send_message(MllpAddress("localhost", stranger.port, trust), MESSAGE, "42", HANGS_S)
    with mllp_listener(context(ours)) as named, pytest.raises(DestinationAwayError, match="Cert"):
        send_message(MllpAddress("127.1", named.port, trust), MESSAGE, "42", HANGS_S)
    with answering(lambda peer: taken.append(peer.recv(1 << 16))) as plain, pytest.raises(DestinationAwayError):
        send_message(MllpAddress("localhost", plain.port, trust), MESSAGE, "42", 1)

    assert stranger.received == named.received == []
    assert not any(b"PID" in each for each in taken)
