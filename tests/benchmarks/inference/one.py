"""One way or form, measured in a process of its own: `python -m tests.benchmarks.inference.one '{"form": …}'`."""

from __future__ import annotations

import json
import pickle
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import psutil
import torch
from torch import Tensor

from inference.networks.weights import load_network
from inference.predict import PreparedImage
from tests.benchmarks.inference import forms, serving
from tests.benchmarks.inference.forms import FORMS, Scores
from tests.benchmarks.inference.serving import WAYS, Said, open_bundle

_MIB = 1 << 20
T = TypeVar("T")


@dataclass(frozen=True)
class Request:
    """What is measured."""

    part: str
    """'serving' or 'network'."""
    form: str
    """One of `serving.WAYS` or of `forms.FORMS`."""
    bundle: str
    images: str
    """File of prepared images; of the part 'network', '': noise is shown."""
    expected: str
    """File that the plain loop's answers are written to and compared with."""
    device: str
    size: int
    batch: int
    count: int
    threads: int


@dataclass(frozen=True)
class Measured:
    """What was."""

    part: str
    form: str
    at_once: int
    """Images that the network was shown together: where batches larger than these are asked for, in parts."""
    per_second: float
    p50_ms: float
    p95_ms: float
    first_s: float
    """Until the first answers, at batch 1 and in a batch: compilation, capture, allocation."""
    single_mib: float
    """Device memory that torch allocated at the most, CUDA's own context aside, from loading to the last image at batch
    1; on the CPU resident memory above that before the network was loaded."""
    peak_mib: float
    """The same with the batches."""
    gap: float
    """Largest difference of a probability from that of the plain loop."""
    pixels: float
    """Largest share of an image's pixels that are labelled otherwise."""
    withheld: int
    """Images of the first batch that a guard withheld."""


def measure(asked: Request) -> Measured:
    """Load, warm up, compare, measure."""
    torch.manual_seed(1)
    torch.set_num_threads(asked.threads)
    return _of_serving(asked) if asked.part == "serving" else _of_network(asked)


def _of_serving(asked: Request) -> Measured:
    # Written by the process that started this one.
    kept: list[PreparedImage] = pickle.loads(Path(asked.images).read_bytes())  # noqa: S301
    images = [kept[index % len(kept)] for index in range(asked.count)]
    device, before = torch.device(asked.device), psutil.Process().memory_info().rss
    way = WAYS[asked.form](open_bundle(asked.bundle, asked.size), device)
    said, figures = _timed(way, images, asked.batch, device, before)
    answers = _expected(asked, list(said))
    pairs = [(one, other) for one, other in zip(said, answers, strict=True) if one is not None and other is not None]
    return Measured(
        part=asked.part,
        form=asked.form,
        at_once=serving.at_once(asked.form, asked.batch),
        gap=max((float(abs(one.probabilities - other.probabilities).max()) for one, other in pairs), default=0.0),
        pixels=max((float((one.lungs != other.lungs).mean()) for one, other in pairs), default=0.0),
        withheld=sum(one is None for one in said),
        **figures,
    )


def _of_network(asked: Request) -> Measured:
    images = torch.rand(asked.count, 1, asked.size, asked.size)
    device, before = torch.device(asked.device), psutil.Process().memory_info().rss
    form = FORMS[asked.form](load_network(open_bundle(asked.bundle), torch.device("cpu")), device, asked.size)

    def shown(parts: Sequence[Tensor]) -> list[Scores]:
        return [form(torch.stack(list(parts)))]

    (said,), figures = _timed(shown, list(images), asked.batch, device, before)
    plainly = forms.plain(load_network(open_bundle(asked.bundle), torch.device("cpu")), torch.device("cpu"), asked.size)
    expected = plainly(images[: asked.batch])
    return Measured(
        part=asked.part,
        form=asked.form,
        at_once=forms.at_once(asked.form, asked.batch),
        gap=_gap(said, expected),
        pixels=0.0,
        withheld=0,
        **figures,
    )


def _expected(asked: Request, said: list[Said | None]) -> list[Said | None]:
    """Return what the plain loop said of the first batch, which is measured first."""
    file = Path(asked.expected)
    if asked.form == "plain":
        file.write_bytes(pickle.dumps(said))
    if not file.exists():
        return said
    answers: list[Said | None] = pickle.loads(file.read_bytes())  # noqa: S301 -- as above
    return answers


def _timed(
    run: Callable[[Sequence[T]], Sequence[object]],
    images: Sequence[T],
    batch: int,
    device: torch.device,
    before: int,
) -> tuple[list, dict[str, float]]:
    """Return the answers to the first batch, and the figures of time and memory.

    Images go alone first: memory at batch 1 cannot be told once there were batches.

    Parameters
    ----------
    before
        Resident bytes before the network was loaded.
    """
    first_s = _took_s(run, images[:1], device)
    latencies = [_took_s(run, [image], device) for image in images]
    single = _peak(device, before)
    began = time.perf_counter()
    said = list(run(images[:batch]))
    _wait(device)
    first_s += time.perf_counter() - began
    whole = [images[first : first + batch] for first in range(0, len(images) - batch + 1, batch)]
    # By the median batch: other work on the machine spoils some, not half of them.
    took_s = statistics.median(_took_s(run, part, device) for part in whole)
    return said, {
        "per_second": batch / took_s,
        "p50_ms": 1000 * statistics.median(latencies),
        "p95_ms": 1000 * statistics.quantiles(latencies, n=20)[-1],
        "first_s": first_s,
        "single_mib": single / _MIB,
        "peak_mib": _peak(device, before) / _MIB,
    }


def _took_s(run: Callable[[Sequence[T]], Sequence[object]], images: Sequence[T], device: torch.device) -> float:
    began = time.perf_counter()
    run(images)
    _wait(device)
    return time.perf_counter() - began


def _gap(said: Scores, expected: Scores) -> float:
    pairs = zip(said, expected, strict=True)
    return max(float((_shares(one.cpu()) - _shares(other.cpu())).abs().max()) for one, other in pairs)


def _shares(scores: Tensor) -> Tensor:
    return torch.softmax(scores.float(), dim=1)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _peak(device: torch.device, before: int) -> int:
    return torch.cuda.max_memory_allocated() if device.type == "cuda" else _peak_rss() - before


def _peak_rss() -> int:
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    print(json.dumps(asdict(measure(Request(**json.loads(sys.argv[1]))))))
