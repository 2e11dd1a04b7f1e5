"""A message to a receiver over MLLP (Minimal Lower Layer Protocol, HL7 Transport, release 1), and its answer."""

from __future__ import annotations

import socket
import ssl
import time
from dataclasses import dataclass
from typing import Final

from gateway.errors import DeliveryError, DestinationAwayError

_BEGIN: Final = b"\x0b"
_END: Final = b"\x1c\r"
_LARGEST_ANSWER = 1 << 16
_CHUNK = 4096
_TAKEN = frozenset({"AA", "CA"})


@dataclass(frozen=True, slots=True)
class MllpAddress:
    """A receiver."""

    host: str
    port: int
    tls: ssl.SSLContext | None
    """None: without TLS."""


def send_message(address: MllpAddress, content: bytes, control_id: str, timeout_s: float) -> None:
    """Send a message and return once the receiver has taken it: MSA-1 is AA, or CA.

    Raises
    ------
    DestinationAwayError
        It does not answer in time, or not to this message.
    DeliveryError
        It answers that it does not take it: AE, AR, CE or CR (table 0008).
    """
    deadline = time.monotonic() + timeout_s
    try:
        with socket.create_connection((address.host, address.port), timeout=timeout_s) as plain:
            if address.tls is None:
                answer = _ask(plain, content, deadline)
            else:
                with address.tls.wrap_socket(plain, server_hostname=address.host) as secured:
                    answer = _ask(secured, content, deadline)
    except TimeoutError as error:
        raise DestinationAwayError(f"no acknowledgement within {timeout_s:g} s") from error
    except (OSError, ssl.SSLError) as error:
        raise DestinationAwayError(f"no connection: {type(error).__name__}") from error
    _read(answer, control_id)


def _ask(link: socket.socket, content: bytes, deadline: float) -> bytes:
    """Send in a frame and return the first frame that comes back."""
    link.settimeout(_left(deadline))
    link.sendall(_BEGIN + content + _END)
    received = bytearray()
    while _END not in received:
        link.settimeout(_left(deadline))  # for all of the answer together, however slowly it comes
        chunk = link.recv(_CHUNK)
        if not chunk:
            raise DestinationAwayError("the connection was closed without an acknowledgement")
        received += chunk
        if len(received) > _LARGEST_ANSWER:
            raise DestinationAwayError(f"the acknowledgement has more than {_LARGEST_ANSWER} bytes")
    return bytes(received).partition(_END)[0].partition(_BEGIN)[2]


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _read(answer: bytes, control_id: str) -> None:
    """Judge an acknowledgement; its texts are not told on, since they may say whose result it was about."""
    segments = answer.decode("utf-8", errors="replace").replace("\n", "\r").split("\r")
    if not segments[0].startswith("MSH"):
        raise DestinationAwayError("the answer is no HL7 message")
    separator = segments[0][3:4]
    by_name = {each[:3]: each.split(separator) for each in reversed(segments) if each}
    code, told_id = [*by_name.get("MSA", []), "", "", ""][1:3]
    if told_id != control_id:
        raise DestinationAwayError("the acknowledgement is of another message")
    if code not in _TAKEN:
        reasons = [*by_name.get("ERR", []), "", "", "", ""][3].partition("^")[0][:20]  # ERR-3, a code of table 0357
        detail = f", error {reasons}" if reasons.isalnum() else ""
        raise DeliveryError(f"refused with {code[:2] if code.isalpha() else 'no code'}{detail}")
