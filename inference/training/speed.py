"""How fast a bundle's network answers, and what memory that takes, measured in a process of its own.

The network is shown images as a study is (`inference.views.look`): whole, then cut to the lungs, heads and outlines
included; reading the study and writing results are not in it. The images are noise: how long it takes does not depend
on what is on them.
"""

from __future__ import annotations

import multiprocessing
import resource
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from inference.bundle import Bundle, load_bundle
from inference.device import resolve_device
from inference.foreign.spec import NOBODY, Allowance
from inference.networks.hybridmednet import HybridMedNet
from inference.networks.serving import as_served
from inference.networks.weights import load_network
from inference.views import look

_MIB = 1 << 20
_SINGLE = 40
"""Images one at a time."""
_BATCHES = 5
_BATCH = 8
_WARM_UP = 3


@dataclass(frozen=True, slots=True)
class Speed:
    """What was measured."""

    p50_ms: float
    """Of one image alone, both looks."""
    p95_ms: float
    images_per_s: float
    """In batches of `batch`, by the median one: other work on the machine spoils some, not half of them."""
    peak_mib: float
    """Device memory; on the CPU resident memory above that before the network was loaded."""
    batch: int
    device: str
    threads: int

    def to_dict(self) -> dict[str, object]:
        """Return plain values, rounded."""
        return {name: round(value, 1) if isinstance(value, float) else value for name, value in asdict(self).items()}


def measure_speed(folder: Path, device: str, allowance: Allowance = NOBODY) -> Speed:
    """Measure the bundle in `folder`, by a fresh process with as many threads as this one."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_measured, folder, device, torch.get_num_threads(), allowance).result()


def _measured(folder: Path, device: str, threads: int, allowance: Allowance) -> Speed:
    torch.set_num_threads(threads)
    on = resolve_device(device)
    before = _peak_rss()
    bundle = load_bundle(folder, allowance=allowance)
    network = as_served(load_network(bundle, on))
    detail = bundle.projection.detail
    grey = np.random.default_rng(1).random((_BATCH, detail, detail), dtype=np.float32)
    single = [_took_s(network, bundle, grey[:1], on) for _ in range(_WARM_UP + _SINGLE)][_WARM_UP:]
    batches = [_took_s(network, bundle, grey, on) for _ in range(1 + _BATCHES)][1:]
    peak = torch.cuda.max_memory_allocated(on) if on.type == "cuda" else _peak_rss() - before
    return Speed(
        p50_ms=1000 * statistics.median(single),
        p95_ms=1000 * statistics.quantiles(single, n=20)[-1],
        images_per_s=_BATCH / statistics.median(batches),
        peak_mib=peak / _MIB,
        batch=_BATCH,
        device=torch.cuda.get_device_name(on) if on.type == "cuda" else _processor(),
        threads=threads,
    )


def _took_s(network: HybridMedNet, bundle: Bundle, grey: NDArray[np.float32], device: torch.device) -> float:
    began = time.perf_counter()
    look(network, grey, [1.0] * len(grey), bundle.projection)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def _peak_rss() -> int:
    """Return the largest resident memory of this process so far, bytes."""
    status = Path("/proc/self/status")  # getrusage counts the parent's, too
    if status.exists():
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "CPU")
