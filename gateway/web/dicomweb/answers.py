"""Finished QIDO answers, kept in memory and served as long as the database has not changed.

The mark of the database's state is read before each answer. One that is made is kept under the mark that was read
before its query: it may be newer than its mark, and never older.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.store import Store
from gateway.web.dicomweb.marks import Mark, marks_of

_MOST_BYTES = 64 << 20
"""Of all answers kept."""
_LONGEST = 8 << 20
"""Bytes of an answer that is kept."""
_SEARCH = re.compile(r"/dicomweb/(studies|series|instances|studies/[^/]+/(series/[^/]+/)?(series|instances))")
_OVERHEAD = 2048
"""Bytes that an answer takes besides its body, about."""
_KEPT_STATUS = frozenset({200, 204})
Key = tuple[str, bytes, bytes | None, bytes | None, str]


@dataclass(frozen=True, slots=True)
class Answer:
    """A finished answer."""

    start: Message
    body: Message
    size_bytes: int


class Answers:
    """Answers by request, all of one state of the database; the least recently used go first."""

    def __init__(self, most_bytes: int = _MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._mark: Mark | None = None
        self._kept: OrderedDict[Key, Answer] = OrderedDict()
        self._bytes = 0

    def get(self, key: Key, mark: Mark) -> Answer | None:
        """Return the answer that was kept under the same mark; under another one all are dropped."""
        if mark != self._mark:
            self._mark = mark
            self._kept.clear()
            self._bytes = 0
            return None
        answer = self._kept.get(key)
        if answer is not None:
            self._kept.move_to_end(key)
        return answer

    def put(self, key: Key, mark: Mark, answer: Answer) -> None:
        """Keep an answer, unless the database has changed since its mark was read."""
        if mark != self._mark or key in self._kept:
            return
        self._kept[key] = answer
        self._bytes += answer.size_bytes
        while self._bytes > self._most_bytes:
            _, dropped = self._kept.popitem(last=False)
            self._bytes -= dropped.size_bytes


class KeptAnswers:
    """ASGI middleware around the whole application, within the check of access: searches are answered from memory.

    Parameters
    ----------
    app
        What answers otherwise.
    store
        Whose state the answers belong to.
    """

    def __init__(self, app: ASGIApp, store: Store) -> None:
        self._app = app
        self._marks = marks_of(store)
        self._answers = Answers()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["method"] != "GET" or _SEARCH.fullmatch(scope["path"]) is None:
            await self._app(scope, receive, send)
            return
        mark, key = await self._marks.current(), _key(scope)
        if mark is None:
            await self._app(scope, receive, send)
        elif (answer := self._answers.get(key, mark)) is not None:
            await send(answer.start)
            await send(answer.body)
        else:
            await self._app(scope, receive, _Keeping(self._answers, key, mark, send))


class _Keeping:
    """Sends an answer on, and keeps it where it is whole and short enough."""

    def __init__(self, answers: Answers, key: Key, mark: Mark, send: Send) -> None:
        self._answers = answers
        self._key = key
        self._mark = mark
        self._send = send
        self._start: Message | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start = {**message, "headers": [*message.get("headers", ())]}
        elif self._start is not None and not message.get("more_body", False):
            size = len(message.get("body", b"")) + len(self._key[1])
            if self._start["status"] in _KEPT_STATUS and size <= _LONGEST:
                self._answers.put(self._key, self._mark, Answer(self._start, message, size + _OVERHEAD))
        else:
            self._start = None  # in parts: not one of ours
        await self._send(message)


def _key(scope: Scope) -> Key:
    """Return what an answer depends on: besides the path and the query the type wanted and the address asked."""
    accept = host = None
    for name, value in scope["headers"]:
        if name == b"accept":
            accept = value if accept is None else accept + b"," + value
        elif name == b"host":
            host = value
    return scope["path"], scope["query_string"], accept, host, scope["scheme"]
