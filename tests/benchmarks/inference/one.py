"""One form, measured in a process of its own: `python -m tests.benchmarks.inference.one '{"form": …}'`."""

from __future__ import annotations

import json
import resource
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
import torch
from torch import Tensor

from inference.bundle import default_bundle_dir, load_bundle
from inference.networks.weights import load_network
from tests.benchmarks.inference.forms import FORMS, Form, Scores, plain

_MIB = 1 << 20


@dataclass(frozen=True)
class Request:
    """What is measured."""

    form: str
    bundle: str
    device: str
    size: int
    batch: int
    images: int
    threads: int


@dataclass(frozen=True)
class Measured:
    """What was."""

    form: str
    per_second: float
    p50_ms: float
    p95_ms: float
    first_s: float
    """Until the first answers, at batch 1 and in a batch: compilation, capture, allocation."""
    peak_mib: float
    """Device memory, or resident memory above that before the network was loaded."""
    gap: float
    """Largest difference of a probability from that of the plain loop."""


def measure(asked: Request) -> Measured:
    """Load, warm up, compare, measure."""
    torch.manual_seed(1)
    torch.set_num_threads(asked.threads)
    device = torch.device(asked.device)
    images = torch.rand(asked.images, 1, asked.size, asked.size)
    before = psutil.Process().memory_info().rss
    bundle = load_bundle(default_bundle_dir() / asked.bundle)
    network = load_network(bundle, torch.device("cpu"))
    form = FORMS[asked.form](network, device, asked.size)
    began = time.perf_counter()
    few = images[: asked.batch]
    said = form(few)
    form(images[:1])
    _wait(device)
    first_s = time.perf_counter() - began
    latencies = _latencies(form, images, device)
    per_second = _throughput(form, images, asked.batch, device)
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else _peak_rss() - before
    expected = plain(load_network(bundle, torch.device("cpu")), torch.device("cpu"), asked.size)(few)
    return Measured(
        form=asked.form,
        per_second=per_second,
        p50_ms=1000 * statistics.median(latencies),
        p95_ms=1000 * statistics.quantiles(latencies, n=20)[-1],
        first_s=first_s,
        peak_mib=peak / _MIB,
        gap=_gap(said, expected),
    )


def _latencies(form: Form, images: Tensor, device: torch.device) -> list[float]:
    took = []
    for image in images:
        began = time.perf_counter()
        form(image[None])
        _wait(device)
        took.append(time.perf_counter() - began)
    return took


def _throughput(form: Form, images: Tensor, batch: int, device: torch.device) -> float:
    """Return images a second by the median batch: other work on the machine spoils some, not half of them."""
    took = []
    for part in (part for part in images.split(batch) if len(part) == batch):
        began = time.perf_counter()
        form(part)
        _wait(device)
        took.append(time.perf_counter() - began)
    return batch / statistics.median(took)


def _gap(said: Scores, expected: Scores) -> float:
    pairs = zip(said, expected, strict=True)
    return max(float((_shares(one.cpu()) - _shares(other.cpu())).abs().max()) for one, other in pairs)


def _shares(scores: Tensor) -> Tensor:
    return torch.softmax(scores.float(), dim=1)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _peak_rss() -> int:
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    print(json.dumps(asdict(measure(Request(**json.loads(sys.argv[1]))))))
