"""All forms after each other, each in a process of its own; prints a table and writes JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import torch

from inference.bundle import default_bundle_dir, load_bundle
from tests.benchmarks.inference.forms import FORMS
from tests.benchmarks.inference.one import Measured, Request

_LIMIT_S = 1200


def main() -> None:
    """Measure, print, write."""
    arguments = _arguments()
    size = arguments.size or load_bundle(default_bundle_dir() / arguments.bundle).projection.size
    forms = [name for name in arguments.forms.split(",") if arguments.device == "cpu" or name != "onnx"]
    found = []
    for form in forms:
        found.append(
            _measured(
                Request(
                    form, arguments.bundle, arguments.device, size, arguments.batch, arguments.images, arguments.threads
                )
            )
        )
        print(f"{form} measured", file=sys.stderr)
    print(_table(found, arguments.device, size, arguments.batch))
    if arguments.out is not None:
        facts = {
            "bundle": arguments.bundle,
            "device": _device(arguments.device),
            "threads": arguments.threads,
            "size": size,
            "batch": arguments.batch,
            "images": arguments.images,
            "torch": torch.__version__,
            "load": os.getloadavg()[0],
        }
        rows = [asdict(one) for one in found]
        arguments.out.write_text(json.dumps({**facts, "forms": rows}, indent=2), encoding="utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", default="cxr-pneumonia")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--forms", default=",".join(FORMS), help="separated by commas; 'plain' is the base of ratios")
    parser.add_argument("--size", type=int, default=0, help="side of the images; the bundle's own without it")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def _measured(asked: Request) -> Measured:
    command = [sys.executable, "-m", "tests.benchmarks.inference.one", json.dumps(asdict(asked))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_LIMIT_S)
    if done.returncode:
        raise SystemExit(f"{asked.form}: {done.stderr.strip()}")
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def _device(name: str) -> str:
    if name == "cuda":
        return torch.cuda.get_device_name()
    return f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def _table(found: list[Measured], device: str, size: int, batch: int) -> str:
    base = next((one.per_second for one in found if one.form == "plain"), None)
    head = f"{_device(device)}; {size} x {size}, batch {batch} (latency at batch 1)"
    columns = (
        f"{'form':10} {'images/s':>9} {'ratio':>6} {'p50 ms':>8} {'p95 ms':>8} {'first s':>8} {'MiB':>7} {'gap':>9}"
    )
    rows = [head, columns]
    for one in found:
        ratio = "-" if base is None else f"{one.per_second / base:.2f}"
        rows.append(
            f"{one.form:10} {one.per_second:9.1f} {ratio:>6} {one.p50_ms:8.2f} {one.p95_ms:8.2f} "
            f"{one.first_s:8.1f} {one.peak_mib:7.0f} {one.gap:9.2g}"
        )
    return "\n".join(rows)


if __name__ == "__main__":
    main()
