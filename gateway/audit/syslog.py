"""Syslog messages (RFC 5424) to an audit repository: over TLS (RFC 5425), TCP (RFC 6587) or UDP (RFC 5426)."""

from __future__ import annotations

import os
import socket
import ssl
from datetime import datetime
from typing import Literal

from gateway.config.audit import Audit
from gateway.errors import ConfigurationError, DestinationAwayError
from gateway.tls import TlsFiles, client_context

_PRIORITY = 85
"""Facility 10 (security/authorization), severity 5 (notice)."""
_MESSAGE_ID = "DICOM+RFC3881"
"""PS3.15 A.6: what the message is."""
_LARGEST_DATAGRAM = 65000
_BOM = b"\xef\xbb\xbf"


def syslog_message(xml: bytes, at: datetime, application: str = "hybridmed") -> bytes:
    """Return the message of RFC 5424 that carries an audit message."""
    time = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    head = f"<{_PRIORITY}>1 {time} {socket.gethostname()[:255]} {application} {os.getpid()} {_MESSAGE_ID} - "
    return head.encode("ascii", "replace") + _BOM + xml


def framed(message: bytes) -> bytes:
    """Return a message with its length before it (RFC 5425 4.3, RFC 6587 3.4.1)."""
    return f"{len(message)} ".encode("ascii") + message


class Repository:
    """A connection to the audit repository; opened when it is needed, and again after a failure.

    Parameters
    ----------
    way, host, port
        Where it is.
    settings
        Certificates and the time limit.
    """

    def __init__(self, way: Literal["tls", "tcp", "udp"], host: str, port: int, settings: Audit) -> None:
        self._way = way
        self._host = host
        self._port = port
        self._settings = settings
        self._socket: socket.socket | None = None

    def send(self, message: bytes) -> None:
        """Send one; DestinationAwayError where the repository takes nothing.

        Syslog has no answer: what was handed over when the repository died may be lost. TLS and TCP look first whether
        it has hung up.
        """
        try:
            if self._way == "udp":
                self._connected().send(message[:_LARGEST_DATAGRAM])
                return
            self._look_for_end()
            self._connected().sendall(framed(message))
        except OSError as error:
            self.close()
            raise DestinationAwayError(f"the audit repository: {type(error).__name__}") from error
        except ConfigurationError as error:  # certificates may be spoilt at any time, and mended
            self.close()
            raise DestinationAwayError(f"the audit repository: {error}") from error

    def close(self) -> None:
        """End the connection in good order."""
        if self._socket is not None:
            try:
                if isinstance(self._socket, ssl.SSLSocket):
                    self._socket.unwrap()
            except OSError:
                pass  # it has gone already
            finally:
                self._socket.close()
                self._socket = None

    def _connected(self) -> socket.socket:
        if self._socket is None:
            self._socket = self._open()
        return self._socket

    def _open(self) -> socket.socket:
        timeout_s = self._settings.timeout_s
        if self._way == "udp":
            family, kind, protocol, _, address = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_DGRAM)[0]
            datagrams = socket.socket(family, kind, protocol)
            datagrams.connect(address)
            return datagrams
        plain = socket.create_connection((self._host, self._port), timeout=timeout_s)
        if self._way == "tcp":
            return plain
        try:
            return self._context().wrap_socket(plain, server_hostname=self._host)
        except (OSError, ConfigurationError):
            plain.close()
            raise

    def _context(self) -> ssl.SSLContext:
        settings = self._settings
        own = settings.certificate_file
        files = None if own is None else TlsFiles(own, settings.private_key_file)
        return client_context(files, peer_ca=settings.ca_file)

    def _look_for_end(self) -> None:
        """Close a connection that the repository has ended: what is written to it would be lost without a word."""
        if self._socket is None:
            return
        self._socket.setblocking(False)
        try:
            if not self._socket.recv(1):
                self.close()
        except (BlockingIOError, ssl.SSLWantReadError):
            pass  # nothing to read: it is there
        except OSError:
            self.close()
        finally:
            if self._socket is not None:
                self._socket.settimeout(self._settings.timeout_s)
