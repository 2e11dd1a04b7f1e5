"""Several loops as one role."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from gateway.services import Role

_LOOK_S = 0.2


class Together:
    """A role made of several, each in a thread of its own; all end when one does.

    Parameters
    ----------
    name
        Of the role.
    parts
        What runs.
    """

    def __init__(self, name: str, parts: Sequence[Role]) -> None:
        self.name = name
        self._parts = tuple(parts)

    def run(self, stop: threading.Event) -> None:
        """Run all until `stop` is set; raises what the first to fail raised."""
        ending = threading.Event()
        with ThreadPoolExecutor(len(self._parts), thread_name_prefix=self.name) as pool:
            running = [pool.submit(part.run, ending) for part in self._parts]
            # One that ends before `stop` met a defect: the others end too, so that the role is started anew.
            while not stop.wait(_LOOK_S) and not any(each.done() for each in running):
                continue
            ending.set()
            for each in running:
                each.result()
