"""DICOM over TLS: the handshake of who calls us, in the connection's own thread; contexts for those whom we call."""

from __future__ import annotations

import socket
import ssl
from functools import partial

import structlog

from gateway.audit.acts import refused_node
from gateway.audit.trail import record
from gateway.config import DicomAddress
from gateway.config.dicom_tls import DicomTls
from gateway.config.tls import Tls
from gateway.errors import ConfigurationError
from gateway.receive.lobby import Lobby
from gateway.services import Counters
from gateway.tls import Reloading, TlsFiles, client_context, server_context

log = structlog.get_logger()


class SecureChannel:
    """Makes TLS connections of accepted ones; certificates are read again when their files change.

    Parameters
    ----------
    files, section
        The settings `[tls]` and `[dicom_tls]`.
    counters
        Count handshakes that failed.
    """

    def __init__(self, files: Tls, section: DicomTls, counters: Counters) -> None:
        paths = TlsFiles.of(files)
        if section.client_certificate != "none" and paths.peer_ca is None:
            raise ConfigurationError("dicom_tls.client_certificate needs HYBRIDMED_TLS__PEER_CA, which says whose")
        build = partial(server_context, paths, section.client_certificate)
        self._contexts = Reloading(build, paths.paths, files.reload_s)
        self._handshake_s = section.handshake_s
        self._counters = counters

    def secured(self, peer: socket.socket, address: str, lobby: Lobby) -> ssl.SSLSocket | None:
        """Return the connection after its handshake; None, with the connection closed, where that failed.

        During the handshake it is in the lobby, which bounds handshakes in all and of each address.
        """
        try:
            peer.settimeout(self._handshake_s)  # of the whole handshake
            secured = self._contexts.current().wrap_socket(peer, server_side=True, do_handshake_on_connect=False)
            lobby.exchange(peer, secured, address)
            peer = secured
            secured.do_handshake()
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError; a name that is none a ValueError
            if lobby.holds(peer):  # whoever was sent away from there has been told of
                self._refused(address, _reason(error))
            peer.close()
            return None
        return secured

    def _refused(self, address: str, reason: str) -> None:
        self._counters.add("hybridmed_tls_handshakes_failed_total")
        log.warning("tls.refused", address=address, reason=reason)
        record(refused_node("", address, f"TLS: {reason}"))


class ClientChannel:
    """Contexts for peers that are called by TLS.

    Parameters
    ----------
    files, section
        The settings `[tls]` and `[dicom_tls]`.
    """

    def __init__(self, files: Tls, section: DicomTls) -> None:
        own = None if files.certificate is None else TlsFiles.of(files)
        paths = () if own is None else own.paths
        build = partial(client_context, own, peer_ca=files.peer_ca, checks_name=section.checks_names)
        self._contexts = Reloading(build, paths, files.reload_s)

    def context(self) -> ssl.SSLContext:
        """Return the context of the files as they are now."""
        return self._contexts.current()


def tls_args(address: DicomAddress, security: ClientChannel | None) -> tuple[ssl.SSLContext, str] | None:
    """Return what pynetdicom's `associate` takes for a peer; ConfigurationError where TLS is wanted and not set up."""
    if not address.tls:
        return None
    if security is None:
        raise ConfigurationError(f"{address.ae_title} is called by TLS, which is not set up here")
    return security.context(), address.host


def _reason(error: Exception) -> str:
    """Return why, without what a stranger wrote into its certificate."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate refused ({error.verify_message})"
    if isinstance(error, ssl.SSLError):
        return (error.reason or type(error).__name__).replace("_", " ").lower()
    return "handshake took too long" if isinstance(error, TimeoutError) else type(error).__name__
