"""Silence for libraries that warn with the values of data sets, from any number of threads at once."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

_lock = threading.Lock()
_silence = ExitStack()
_inside = 0


@contextmanager
def quietly() -> Iterator[None]:
    """Show no warnings of this process meanwhile.

    `warnings.catch_warnings` alone restores what another thread had set, and may leave the silence standing for ever.
    """
    global _inside  # noqa: PLW0603 # the filters of `warnings` are the process's, and so is the count
    with _lock:
        _inside += 1
        if _inside == 1:
            _silence.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                _silence.close()
