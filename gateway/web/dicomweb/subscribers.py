"""Notification connections (PS3.18 8.10): events of workitems over web sockets, in the DICOM JSON model.

One task of the process looks for events, and only while somebody is connected. An event is deleted once it has been
sent to every connection that the subscriber has here; of a subscriber connected to two processes, both may get it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime

import orjson
import structlog
from starlette.concurrency import run_in_threadpool
from starlette.routing import BaseRoute, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from gateway.errors import ServiceAwayError
from gateway.store import Store
from gateway.store.workitem_events import Event, due_events, forget_events
from gateway.workitem.mapping import UPS_PUSH
from gateway.workitem.refusal import WorkitemError
from gateway.workitem.state import Content
from gateway.workitem.subscribing import read_ae_title

log = structlog.get_logger()

_POLL_S = 0.25
_AWAY_S = 2.0
_BATCH = 100
_SEND_S = 10.0
_MOST_CONNECTIONS = 256
_MESSAGE_NUMBERS = 1 << 16
_TRY_LATER, _POLICY, _GOING_AWAY = 1013, 1008, 1001


class Subscribers:
    """The web sockets of this process.

    Parameters
    ----------
    store
        Where events wait.
    send_s
        How long a peer may take for an event before it is disconnected; its events wait.
    """

    def __init__(self, store: Store, send_s: float = _SEND_S) -> None:
        self._store = store
        self._send_s = send_s
        self._connected: dict[str, dict[WebSocket, asyncio.Task[None]]] = {}
        """Subscriber -> its sockets, each with what waits for its end."""
        self._task: asyncio.Task[None] | None = None

    def routes(self) -> list[BaseRoute]:
        """Return the route of the web socket."""
        return [WebSocketRoute("/subscribers/{subscriber}", self.connect)]

    async def connect(self, socket: WebSocket) -> None:
        """`GET /subscribers/AE`, upgraded: events come until the client goes; what it sends is ignored."""
        try:
            subscriber = read_ae_title(socket.path_params["subscriber"])
        except WorkitemError:
            await socket.close(_POLICY)
            return
        if sum(map(len, self._connected.values())) >= _MOST_CONNECTIONS:
            await socket.close(_TRY_LATER)
            return
        await socket.accept()
        listening = asyncio.create_task(_until_gone(socket))
        self._connected.setdefault(subscriber, {})[socket] = listening
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._tell_until_alone())
        try:
            # Returning closes the connection: also that of a peer that `_send` gave up.
            await asyncio.wait([listening])
        finally:
            self._forget(subscriber, socket)

    async def _tell_until_alone(self) -> None:
        numbers: Counter[str] = Counter()
        while self._connected:
            try:
                told = await self._tell(numbers)
            except ServiceAwayError as error:
                log.warning("workitem.sockets_away", reason=str(error))
                await asyncio.sleep(_AWAY_S)
                continue
            if not told:
                await asyncio.sleep(_POLL_S)

    async def _tell(self, numbers: Counter[str]) -> bool:
        events = await run_in_threadpool(self._due, list(self._connected))
        told: list[int] = []
        for event in events:
            numbers[event.subscriber_ae] += 1
            text = _message(event, numbers[event.subscriber_ae] % _MESSAGE_NUMBERS)
            if await self._send(event.subscriber_ae, text):
                told.append(event.id)
        if told:
            await run_in_threadpool(self._told, told)
        return bool(told)

    async def _send(self, subscriber: str, text: str) -> bool:
        """Send to every connection of a subscriber; False where none took it."""
        sent = False
        for socket in list(self._connected.get(subscriber, {})):
            try:
                async with asyncio.timeout(self._send_s):
                    await socket.send_text(text)
                sent = True
            except (TimeoutError, WebSocketDisconnect, RuntimeError):
                # RuntimeError: Starlette's word for a socket that is closed already.
                self._forget(subscriber, socket)
        return sent

    def _forget(self, subscriber: str, socket: WebSocket) -> None:
        sockets = self._connected.get(subscriber, {})
        if (listening := sockets.pop(socket, None)) is not None:
            listening.cancel()
        if not sockets:
            self._connected.pop(subscriber, None)

    def _due(self, subscribers: Sequence[str]) -> list[Event]:
        with self._store.read() as connection:
            return due_events(connection, "websocket", subscribers, datetime.now(UTC), _BATCH)

    def _told(self, ids: Sequence[int]) -> None:
        with self._store.write() as connection:
            forget_events(connection, ids)


async def _until_gone(socket: WebSocket) -> None:
    while (await socket.receive())["type"] != "websocket.disconnect":
        continue


def _message(event: Event, number: int) -> str:
    """Return an event report as PS3.18 11.13 writes it."""
    head: Content = {
        "00000002": {"vr": "UI", "Value": [UPS_PUSH]},
        "00000110": {"vr": "US", "Value": [number]},
        "00001000": {"vr": "UI", "Value": [event.subject]},
        "00001002": {"vr": "US", "Value": [int(event.kind)]},
    }
    return orjson.dumps({**head, **event.content}).decode()
