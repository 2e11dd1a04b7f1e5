"""AE titles, and where application entities are on the network."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator

_AE_TITLE_LENGTH = 16
_LAST_PORT = 65535
_DICOM_DESTINATION = re.compile(r"^(?P<ae>[^@]{1,16})@(?P<host>[^:@]+):(?P<port>\d{1,5})(?P<tls>\+tls)?$")


def _ae_title(value: str) -> str:
    """Return an AE title (PS3.5 6.2: 1 to 16 characters of the default repertoire, no backslash, not only spaces)."""
    title = value.strip()
    if not 1 <= len(title) <= _AE_TITLE_LENGTH or "\\" in title or not title.isascii() or not title.isprintable():
        raise ValueError(f"{value!r} is not an AE title: 1 to 16 printable ASCII characters without backslash")
    return title


AETitle = Annotated[str, AfterValidator(_ae_title)]


@dataclass(frozen=True, slots=True)
class DicomAddress:
    """A DICOM application entity on the network."""

    ae_title: str
    host: str
    port: int
    tls: bool = False
    """Whether it is called by TLS."""

    @classmethod
    def parse(cls, text: str) -> DicomAddress:
        """Parse `AET@host:port`, or `AET@host:port+tls`; ValueError says what was expected."""
        match = _DICOM_DESTINATION.match(text.strip())
        if match is None:
            raise ValueError(f"{text!r} is not AET@host:port")
        port = int(match["port"])
        if not 1 <= port <= _LAST_PORT:
            raise ValueError(f"{text!r}: a port is 1 to {_LAST_PORT}")
        return cls(_ae_title(match["ae"]), match["host"], port, match["tls"] is not None)

    def __str__(self) -> str:
        return f"{self.ae_title}@{self.host}:{self.port}{'+tls' if self.tls else ''}"


def is_loopback(address: str) -> bool:
    """Say whether an address to bind is this machine's own alone."""
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
