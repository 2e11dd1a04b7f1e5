"""A connection to PostgreSQL that does not wait for ever.

libpq bounds how long a host may be gone (`engine._POSTGRES_ARGS`). It does not bound how long one that is there may say
nothing: a proxy whose server was lost, a server whose disk hangs. A thread that waits for such an answer would wait
until somebody ends the process.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any, TypeVar

import psycopg

T = TypeVar("T")

SILENCE_S = 300.0
"""Longer than any statement of ours takes, changes of the schema excepted."""


class AnsweringConnection(psycopg.Connection[Any]):
    """A connection that is given up, as one that broke, where an answer is due and nothing comes for `silence_s`."""

    silence_s: float | None = SILENCE_S
    """None: it waits for ever."""

    def wait(self, gen: Generator[Any, Any, T], *arguments: Any, **options: Any) -> T:
        """Run one of psycopg's exchanges with the server; OperationalError where the server falls silent."""
        if self.silence_s is None:
            return super().wait(gen, *arguments, **options)
        try:
            return super().wait(_heard(gen, self.silence_s), *arguments, **options)
        except _SilentError:
            self.pgconn.finish()  # in the middle of an answer: it is of no more use
            raise


class _SilentError(psycopg.OperationalError):
    """Nothing came."""


def _heard(gen: Generator[Any, Any, T], silence_s: float) -> Generator[Any, Any, T]:
    """Pass on what psycopg's waiting loop tells, which is false where nothing came within its interval."""
    try:
        wanted = next(gen)
        heard_at = time.monotonic()
        while True:
            ready = yield wanted
            if ready:
                heard_at = time.monotonic()
            elif time.monotonic() - heard_at > silence_s:
                raise _SilentError(f"the server has said nothing for {silence_s:g} s")
            wanted = gen.send(ready)
    except StopIteration as end:
        answer: T = end.value
        return answer
