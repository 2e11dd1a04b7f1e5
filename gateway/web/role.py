"""The role `web`: uvicorn in a thread, stopped in good order."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import structlog
import uvicorn
from starlette.types import ASGIApp

from gateway.errors import ConfigurationError
from gateway.tls import Reloading, following
from gateway.web.protocol import BoundedHttpProtocol

log = structlog.get_logger()

_DRAIN_S = 10
_WS_BYTES = 4096
"""Largest web socket message taken: subscribers only listen."""
_POLL_S = 0.2
_BACKLOG = 128


@dataclass(frozen=True, slots=True)
class Front:
    """What stands between the network and the application."""

    tls: Reloading | None = None
    """Our certificate; None: plain HTTP."""
    trusted_proxies: Sequence[str] = ()
    """Addresses and networks whose X-Forwarded-For and X-Forwarded-Proto are believed."""
    shares_port: bool = False
    """Whether other processes of this gateway serve on the same port; the kernel deals the connections out."""

    def context(self, *_: object) -> ssl.SSLContext:
        """Return the context of the server; for uvicorn, which passes what we do not need."""
        if self.tls is None:
            raise ConfigurationError("there is no certificate")
        return following(self.tls)


_PLAIN = Front()


class WebRole:
    """Serves HTTP until told to stop, then lets open requests end.

    Parameters
    ----------
    app
        `gateway.web.app.create_app(…)`.
    bind, port
        Where to listen.
    closing
        Set when the server stops, so that streams end and hold nothing up.
    front
        What stands between the network and the application.
    """

    name = "web"

    def __init__(
        self,
        app: ASGIApp,
        *,
        bind: str,
        port: int,
        closing: threading.Event | None = None,
        front: Front = _PLAIN,
    ) -> None:
        self._app = app
        self._bind = bind
        self._port = port
        self._closing = closing or threading.Event()
        self._front = front

    def run(self, stop: threading.Event) -> None:
        """Serve until `stop` is set.

        Raises
        ------
        ConfigurationError
            The port is taken, or the address is not ours.
        RuntimeError
            The server ended by itself.
        """
        listener = self._listener()
        server = uvicorn.Server(
            uvicorn.Config(
                self._app,
                http=BoundedHttpProtocol,
                log_config=None,
                access_log=False,
                server_header=False,
                ws="websockets-sansio",
                ws_max_size=_WS_BYTES,
                ws_per_message_deflate=False,
                lifespan="off",
                timeout_graceful_shutdown=_DRAIN_S,
                ssl_context_factory=None if self._front.tls is None else self._front.context,
                proxy_headers=bool(self._front.trusted_proxies),
                forwarded_allow_ips=list(self._front.trusted_proxies),
            )
        )
        # In a thread of its own: in the main one uvicorn would take the signals, which are the supervisor's.
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="http")
        thread.start()
        log.info("web.listening", bind=self._bind, port=listener.getsockname()[1])
        try:
            while not stop.wait(_POLL_S):
                if not thread.is_alive():
                    raise RuntimeError("the HTTP server ended by itself")
        finally:
            self._closing.set()
            server.should_exit = True
            thread.join()
            listener.close()
        log.info("web.stopped")

    def _listener(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self._bind else socket.AF_INET
        try:
            listener = socket.create_server(
                (self._bind, self._port), family=family, backlog=_BACKLOG, reuse_port=self._front.shares_port
            )
        except OSError as error:
            raise ConfigurationError(
                f"cannot listen on {self._bind} port {self._port}: {error.strerror}; set HYBRIDMED_HTTP_PORT or _BIND"
            ) from error
        # asyncio does it only for sockets made with an explicit protocol; without it small answers wait for 40 ms.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
