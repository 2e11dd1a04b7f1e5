"""From files to the socket of a connection without a copy: the kernel sends what its page cache holds (sendfile(2))."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

EXTENSION = "hybridmed.wire"
"""Key in the scope's `extensions` under which a request's `Wire` stands."""
_CHUNK = 1 << 20
"""Bytes of one call: other requests get their turn between two."""

_NOT_FROM_HERE = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP})
"""Of a file system from which the kernel cannot send."""


class PeerGoneError(ConnectionError):
    """The client went before the end of its answer."""


class Wire:
    """What an answer may send by itself, between the head and the end that the server sends.

    Parameters
    ----------
    transport, flow
        Of the connection, which is not encrypted.
    cycle
        Of the request: it counts the bytes that it expects.
    """

    def __init__(self, transport: asyncio.Transport, flow: FlowControl, cycle: RequestResponseCycle) -> None:
        self._transport = transport
        self._flow = flow
        self._cycle = cycle

    @asynccontextmanager
    async def opened(self, going: asyncio.Future[None]) -> AsyncIterator[Outlet]:
        """Give an outlet for the body once the head is on its way.

        Parameters
        ----------
        going
            Done when the client is gone.

        Raises
        ------
        PeerGoneError
            The client went; nothing else can be sent.
        """
        self._transport.set_write_buffer_limits(0)
        await self._flow.drain()
        if self._transport.is_closing():
            raise PeerGoneError
        # A descriptor of its own: the loop lets nobody else wait for the one of the transport.
        outlet = Outlet(socket.socket(fileno=os.dup(self._transport.get_extra_info("socket").fileno())), going)
        try:
            yield outlet
        except ConnectionError as error:
            self._transport.abort()
            raise PeerGoneError from error
        finally:
            outlet.close()
            self._cycle.expected_content_length -= outlet.sent_bytes


class Outlet:
    """Sends bytes and stretches of files, as fast as the client takes them.

    Parameters
    ----------
    connection
        Not blocking.
    going
        Done when the client is gone.
    """

    def __init__(self, connection: socket.socket, going: asyncio.Future[None]) -> None:
        self.sent_bytes = 0
        self._socket = connection
        self._going = going

    async def send(self, data: bytes, *, is_last: bool = False) -> None:
        """Send bytes; they leave together with what follows them."""
        left = memoryview(data)
        while left:
            try:
                count = self._socket.send(left, 0 if is_last else socket.MSG_MORE)
            except BlockingIOError:
                await self._writable()
                continue
            left = left[count:]
            self.sent_bytes += count

    async def send_file(self, descriptor: int, offset: int, length: int) -> int:
        """Send a stretch of a file; return how much of it was there."""
        done = 0
        while done < length:
            try:
                count = os.sendfile(self._socket.fileno(), descriptor, offset + done, min(length - done, _CHUNK))
            except BlockingIOError:
                await self._writable()
                continue
            except OSError as error:
                if error.errno not in _NOT_FROM_HERE:
                    raise
                count = await self._send_read(descriptor, offset + done, min(length - done, _CHUNK))
            else:
                self.sent_bytes += count
            if count == 0:
                break
            done += count
        return done

    async def _send_read(self, descriptor: int, offset: int, length: int) -> int:
        data = os.pread(descriptor, length, offset)
        await self.send(data, is_last=True)
        return len(data)

    def close(self) -> None:
        """Close the descriptor; the connection stays."""
        self._socket.close()

    async def _writable(self) -> None:
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        loop.add_writer(self._socket, _finish, ready)
        try:
            await asyncio.wait({ready, self._going}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            loop.remove_writer(self._socket)
        if self._going.done():
            raise PeerGoneError


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
