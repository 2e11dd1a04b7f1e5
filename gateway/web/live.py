"""`/worklist/events`: pages are told that something changed (server-sent events, HTML 9.2), and ask again for what.

One look at the database a second for the whole process, and none while nobody listens. An event names no study: a
page that is open under a filter would have to be told whether it is meant.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Final

import structlog
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from gateway.errors import ServiceAwayError
from gateway.store import Store
from gateway.store.worklist import change_mark

log = structlog.get_logger()

_LOOK_S = 1.0
_LOOK_AWAY_S = 5.0
_BEAT_S = 15.0
_LIFE_S = 600.0
"""Longest life of a stream: the browser opens it again, and shows anew that it is signed in."""
_RETRY_MS = 3000
_MOST_CLIENTS: Final = 200
_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


class LiveFeed:
    """Tells open pages that something changed.

    Parameters
    ----------
    store
        What is looked at.
    closing
        Set when the server stops: streams then end at once.
    most_clients
        Streams served at once; further ones are refused, and their pages stay as they are.
    """

    def __init__(self, store: Store, closing: threading.Event, most_clients: int = _MOST_CLIENTS) -> None:
        self._store = store
        self._closing = closing
        self._most_clients = most_clients
        self._clients: dict[asyncio.Event, None] = {}
        self._looking: asyncio.Task[None] | None = None
        self._mark: tuple[object, ...] | None = None
        self._number = 0
        self._is_away = False
        self._has_looked = asyncio.Event()
        """Set once there is something to compare with: from the greeting of a page on it misses nothing."""

    async def stream(self, _request: Request) -> Response:
        """`/worklist/events`: `changed` when anything did, `away` while the database is; a comment as heartbeat."""
        if len(self._clients) >= self._most_clients:
            raise HTTPException(503, f"{self._most_clients} pages are live already", headers={"Retry-After": "60"})
        return StreamingResponse(self._events(), media_type="text/event-stream", headers=_HEADERS)

    async def _events(self) -> AsyncIterator[str]:
        news = asyncio.Event()
        self._clients[news] = None
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look_on())
        loop = asyncio.get_running_loop()
        opened = spoken = loop.time()
        try:
            await self._has_looked.wait()
            yield f"retry: {_RETRY_MS}\nevent: hello\ndata: {self._number}\n\n"
            while not self._closing.is_set() and loop.time() - opened < _LIFE_S:
                try:
                    await asyncio.wait_for(news.wait(), _LOOK_S)
                except TimeoutError:
                    if loop.time() - spoken >= _BEAT_S:
                        spoken = loop.time()
                        yield ": still here\n\n"
                    continue
                news.clear()
                spoken = loop.time()
                yield f"event: {'away' if self._is_away else 'changed'}\ndata: {self._number}\n\n"
        finally:
            del self._clients[news]

    async def _look_on(self) -> None:
        """Look while anyone listens."""
        try:
            while self._clients and not self._closing.is_set():
                is_away = await self._look_once()
                self._has_looked.set()
                await asyncio.sleep(_LOOK_AWAY_S if is_away else _LOOK_S)
        finally:
            self._has_looked.set()  # nobody waits for looks that have ended

    async def _look_once(self) -> bool:
        """Tell the pages where anything changed; say whether the database is away."""
        mark, is_away = self._mark, False
        try:
            mark = await run_in_threadpool(self._look)
        except ServiceAwayError as error:
            if not self._is_away:
                log.warning("web.live_away", reason=str(error))
            is_away = True
        has_news = is_away != self._is_away or (self._mark is not None and mark != self._mark)
        self._mark, self._is_away = mark, is_away
        if has_news:
            self._number += 1
            for news in self._clients:
                news.set()
        return is_away

    def _look(self) -> tuple[object, ...]:
        with self._store.read() as connection:
            return change_mark(connection)
