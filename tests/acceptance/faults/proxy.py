"""TCP between the gateway and a peer, which can be disturbed at any moment."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from typing import Literal

from tests.services.process import LOOPBACK, free_port

Mode = Literal["pass", "refuse", "stall", "slow"]
_CHUNK = 1 << 16
_SLOW_S = 0.15
_LAST_S = 0.05
_ENDING_S = 5.0
_NO_LINGER = struct.pack("ii", 1, 0)


class Proxy:
    """Forwards to a port of the loopback interface; a context manager around its thread.

    Parameters
    ----------
    target_port
        Whom it stands before.
    """

    def __init__(self, target_port: int) -> None:
        self.port = free_port()
        self.mode: Mode = "pass"
        """`refuse` ends new connections by a reset, `stall` passes nothing on, `slow` waits before each piece."""
        self._target_port = target_port
        self._loop = asyncio.new_event_loop()
        self._writers: set[asyncio.StreamWriter] = set()
        self._to_gateway: set[asyncio.StreamWriter] = set()
        self._thread = threading.Thread(target=self._run, name=f"proxy-{target_port}", daemon=True)
        self._listening = threading.Event()

    def __enter__(self) -> Proxy:
        self._thread.start()
        if not self._listening.wait(10):
            raise RuntimeError(f"the proxy does not listen on port {self.port}")
        return self

    def __exit__(self, *_exception: object) -> None:
        self.mode = "pass"
        self._call(self._reset_all)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def reset(self) -> None:
        """End all connections by a reset, on both sides."""
        self._call(self._reset_all)

    def half_close(self) -> None:
        """End the direction to the gateway: it reads the end, and what it writes is still taken."""
        self._call(self._half_close_all)

    def _call(self, action: Callable[[], None]) -> None:
        done = threading.Event()

        def act() -> None:
            action()
            done.set()

        self._loop.call_soon_threadsafe(act)
        done.wait(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, LOOPBACK, self.port))
        self._listening.set()
        self._loop.run_forever()
        server.close()
        if pending := asyncio.all_tasks(self._loop):  # they end by themselves: their connections are reset
            self._loop.run_until_complete(asyncio.wait(pending, timeout=_ENDING_S))
        self._loop.run_until_complete(asyncio.sleep(_LAST_S))  # sockets are closed a turn later
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        if self.mode == "refuse":
            self._reset(writer)
            return
        try:
            peer_reader, peer_writer = await asyncio.open_connection(LOOPBACK, self._target_port)
        except OSError:
            self._reset(writer)
            return
        self._writers.add(peer_writer)
        self._to_gateway.add(writer)
        try:
            await asyncio.gather(self._pump(reader, peer_writer), self._pump(peer_reader, writer))
        finally:
            for each in (writer, peer_writer):
                self._writers.discard(each)
                self._to_gateway.discard(each)
                each.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass on what comes; the end of one side is passed on as the end of that direction, a reset as a reset."""
        try:
            while data := await reader.read(_CHUNK):
                while self.mode == "stall":
                    await asyncio.sleep(0.05)
                if self.mode == "slow":
                    await asyncio.sleep(_SLOW_S)
                writer.write(data)
                await writer.drain()
            if writer.can_write_eof():
                writer.write_eof()
        except OSError:
            self._reset(writer)
        except RuntimeError:  # `half_close` ended this direction: nothing of it arrives, and the other goes on
            return

    def _reset(self, writer: asyncio.StreamWriter) -> None:
        self._writers.discard(writer)
        self._to_gateway.discard(writer)
        with contextlib.suppress(OSError):
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        writer.transport.abort()

    def _reset_all(self) -> None:
        for writer in list(self._writers):
            self._reset(writer)

    def _half_close_all(self) -> None:
        for writer in list(self._to_gateway):
            with contextlib.suppress(OSError, RuntimeError):
                writer.write_eof()
