"""TLS contexts, for HTTP and DICOM, after BCP 195 (RFC 9325); built from files that may change while we run.

    files = TlsFiles.of(settings.tls)
    server = Reloading(partial(server_context, files, "required"), files.paths, settings.tls.reload_s)
    connection = server.current().wrap_socket(accepted, server_side=True)   # a context for each connection, or
    listening = following(server)                                           # one for a server that keeps its own
    client = client_context(files)

The key exchange prefers the hybrid group X25519MLKEM768 where OpenSSL has it (3.5 and later): it stands first in
OpenSSL's own list, which is why no group is named here. `has_hybrid_group` says whether it does.
"""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

import structlog

from gateway.config.tls import Tls
from gateway.errors import ConfigurationError

log = structlog.get_logger()

PeerCertificate: TypeAlias = Literal["none", "optional", "required"]

_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2: forward secrecy and authenticated encryption alone (RFC 9325, 4.2); TLS 1.3 has no others."""
_VERIFY: Final = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}
_HYBRID_SINCE: Final = (3, 5)


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Where our identity lies, and whom we believe."""

    certificate: Path
    key: Path | None = None
    key_password_file: Path | None = None
    peer_ca: Path | None = None

    @classmethod
    def of(cls, section: Tls) -> TlsFiles:
        """Return the files of the settings; ConfigurationError where there is no certificate."""
        if section.certificate is None:
            raise ConfigurationError("TLS needs a certificate: set HYBRIDMED_TLS__CERTIFICATE")
        return cls(section.certificate, section.key, section.key_password_file, section.peer_ca)

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files that there are."""
        named = (self.certificate, self.key, self.key_password_file, self.peer_ca)
        return tuple(path for path in named if path is not None)


def server_context(files: TlsFiles, client_certificate: PeerCertificate = "none") -> ssl.SSLContext:
    """Return a context for a server.

    Parameters
    ----------
    files
        Our identity; `peer_ca` holds the authorities of clients.
    client_certificate
        Whether clients have to show one.

    Raises
    ------
    ConfigurationError
        A file is missing or holds something else; the message names it and shows nothing of what it holds.
    """
    context = _strict(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    _load_identity(context, files)
    if client_certificate != "none":
        if files.peer_ca is None:
            raise ConfigurationError("client certificates need HYBRIDMED_TLS__PEER_CA, which says whose")
        _load_authorities(context, files.peer_ca)
        # A resumed session would pass by a list of authorities that has changed since.
        context.num_tickets = 0
        context.options |= ssl.OP_NO_TICKET
    context.verify_mode = _VERIFY[client_certificate]
    return context


def client_context(
    files: TlsFiles | None = None, *, peer_ca: Path | None = None, checks_name: bool = True
) -> ssl.SSLContext:
    """Return a context for a client, which always checks the server's certificate.

    Parameters
    ----------
    files
        Our identity, for servers that ask for it; None: we show none.
    peer_ca
        Authorities of servers, before those of `files`; where neither names any, this machine's.
    checks_name
        Whether the certificate has to be made out to the host name that is called.

    Raises
    ------
    ConfigurationError
        As in `server_context`.
    """
    context = _strict(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    context.check_hostname = checks_name
    authorities = peer_ca or (files.peer_ca if files else None)
    if authorities is None:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    else:
        _load_authorities(context, authorities)
    if files is not None:
        _load_identity(context, files)
    return context


class Reloading:
    """A context that is built anew when its files have changed; for any thread.

    Files that do not fit (a certificate replaced before its key) change nothing until they do: the last context
    that could be built stays, and the log says so.

    Parameters
    ----------
    build
        Builds the context, ConfigurationError where it cannot; called at once.
    paths
        The files to watch.
    interval_s
        Time between looks.
    clock
        Monotonic, in seconds.
    """

    def __init__(
        self,
        build: Callable[[], ssl.SSLContext],
        paths: Sequence[Path],
        interval_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._build = build
        self._paths = tuple(paths)
        self._interval_s = interval_s
        self._clock = clock
        self._lock = threading.Lock()
        self._stamp = _stamp(self._paths)
        self._context = build()
        self._looked_at = clock()

    def current(self) -> ssl.SSLContext:
        """Return the context of the files as they are now."""
        now = self._clock()
        with self._lock:
            if now - self._looked_at >= self._interval_s:
                self._looked_at = now
                self._look()
            return self._context

    def _look(self) -> None:
        stamp = _stamp(self._paths)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._context = self._build()
        except ConfigurationError as error:
            log.error("tls.not_reloaded", reason=str(error))
        else:
            log.info("tls.reloaded")


def following(reloading: Reloading) -> ssl.SSLContext:
    """Return a context for a server that keeps one for good: each handshake goes on with the current one."""
    context = reloading.current()
    outer = _strict(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    # Taken at the start of each handshake; certificate and authorities are those of the context put in place below.
    outer.verify_mode, outer.options, outer.num_tickets = context.verify_mode, context.options, context.num_tickets

    def put_in_place(connection: ssl.SSLObject | ssl.SSLSocket, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = reloading.current()

    outer.sni_callback = put_in_place
    return outer


def has_hybrid_group() -> bool:
    """Say whether this OpenSSL exchanges keys by X25519MLKEM768, safe against a quantum computer of later years."""
    return ssl.OPENSSL_VERSION_INFO[:2] >= _HYBRID_SINCE


def _strict(context: ssl.SSLContext) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    return context


def _load_identity(context: ssl.SSLContext, files: TlsFiles) -> None:
    try:
        # A function, not None: OpenSSL would otherwise ask the terminal for the password and wait for ever.
        context.load_cert_chain(files.certificate, files.key, password=lambda: _password(files.key_password_file))
    except (OSError, UnicodeDecodeError) as error:  # ssl.SSLError is an OSError
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or type(error).__name__
        raise ConfigurationError(f"certificate {files.certificate} and its key cannot be used: {reason}") from None


def _password(file: Path | None) -> str:
    if file is None:
        return ""
    return file.read_text(encoding="utf-8").partition("\n")[0].rstrip("\r")


def _load_authorities(context: ssl.SSLContext, file: Path) -> None:
    try:
        context.load_verify_locations(file)
    except OSError as error:
        reason = getattr(error, "reason", None) or error.strerror or type(error).__name__
        raise ConfigurationError(f"the authorities in {file} cannot be used: {reason}") from None


def _stamp(paths: Sequence[Path]) -> tuple[tuple[int, int, int] | None, ...]:
    """Return what changes with the files: inode, time and size; None for one that is not there."""
    return tuple(_stamp_of(path) for path in paths)


def _stamp_of(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
