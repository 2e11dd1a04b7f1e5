"""The model by itself: `python -m tests.benchmarks.turnaround.bare` loads bundles and is given folders, line by line.

It uses what the worker uses (`inference.predict`), on the same files, with the library's own number of threads.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

BARE = "bare"


@dataclass(frozen=True)
class Spent:
    """How long the model took."""

    read_s: float
    """Files to the network's grid."""
    model_s: float
    """Network's grid to findings."""
    threads: int


class Bare:
    """The process, as a context manager."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __spec__.name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)

    def load(self, bundle: str) -> None:
        """Load a bundle, which checks itself: the network has run once."""
        self._ask(bundle, None)

    def evaluate(self, bundle: str, folder: Path) -> Spent:
        """Evaluate the series in a folder."""
        return Spent(**self._ask(bundle, folder))

    def _ask(self, bundle: str, folder: Path | None) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps([bundle, None if folder is None else str(folder)]) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the model of {bundle} ended with exit status {self._process.wait()}")
        said: dict[str, Any] = json.loads(answer)
        return said


def main() -> None:
    """Answer each line of the input with the seconds that it took."""
    import torch  # noqa: PLC0415 # the caller, which imports this module too, needs none of it

    from inference.bundle import default_bundle_dir, load_bundle  # noqa: PLC0415
    from inference.findings import NotEvaluable  # noqa: PLC0415
    from inference.predict import open_predictor  # noqa: PLC0415

    device = ThreadPoolExecutor(1)  # the worker infers in a thread, too
    predictors = {}
    for line in sys.stdin:
        name, folder = json.loads(line)
        if name not in predictors:
            predictors[name] = open_predictor(load_bundle(default_bundle_dir() / name), "cpu")
        if folder is None:
            print("{}", flush=True)
            continue
        began = time.perf_counter()
        infer = predictors[name].inference([sorted(Path(folder).glob("*.dcm"))])
        read = time.perf_counter()
        outcomes = device.submit(infer).result()
        ended = time.perf_counter()
        if any(isinstance(outcome, NotEvaluable) for outcome in outcomes):
            raise RuntimeError(f"{name} does not evaluate the case: {outcomes}")
        print(
            json.dumps({"read_s": read - began, "model_s": ended - read, "threads": torch.get_num_threads()}),
            flush=True,
        )


if __name__ == "__main__":
    main()
