"""All ways or forms after each other, each in a process of its own; prints a table and writes JSON."""

from __future__ import annotations

import argparse
import json
import os
import pickle
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from inference.predict import Predictor
from tests.benchmarks.inference.forms import FORMS
from tests.benchmarks.inference.one import Measured, Request
from tests.benchmarks.inference.serving import WAYS, open_bundle

_LIMIT_S = 1200
_SAMPLES = Path(__file__).parents[3] / "gateway" / "samples"
_NOT_ON_GPU = {"onnx", "int8"}
_GPU_ONLY = {"recorded"}
_OF_THE_OTHER = ("plain", "onnx")
_PARTS = {"serving": WAYS, "network": FORMS}
_LEAST_IMAGES = 2
"""Of which percentiles can be told."""


def main() -> None:
    """Measure, print, write."""
    arguments = arguments_of()
    size = arguments.size or open_bundle(arguments.bundle).projection.size
    parts = list(_PARTS) if arguments.part == "both" else [arguments.part]
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for part in parts:
            rows = _rows(part, arguments, size, Path(folder))
            print(_table(part, rows, arguments, size))
            found += rows
    if arguments.out is not None:
        facts = {
            "part": arguments.part,
            "bundle": arguments.bundle,
            "against": arguments.against or arguments.bundle,
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


def arguments_of(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options, those of this process without any given; ends it where they cannot be measured."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.inference", description=__doc__)
    parser.add_argument("--part", default="serving", choices=(*_PARTS, "both"))
    parser.add_argument("--bundle", default="cxr-pneumonia", help="a shipped bundle's name, or any bundle's folder")
    parser.add_argument("--against", default="", help="the same, of the bundle that plain and onnx run")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--forms", default="", help="separated by commas, all without it; ratios are to 'plain'")
    parser.add_argument("--size", type=int, default=0, help="side of the network's input; the bundle's own without it")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--images", type=int, default=96, help="at least one batch")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args(given)
    arguments.forms = [form for form in arguments.forms.split(",") if form]
    if unknown := sorted(set(arguments.forms) - set().union(*_PARTS.values())):
        parser.error(f"--forms: {unknown[0]} is none of {', '.join(dict.fromkeys([*WAYS, *FORMS]))}")
    if arguments.batch < 1:
        parser.error(f"--batch {arguments.batch}: at least one image is shown at once")
    if arguments.images < arguments.batch:
        parser.error(f"--images {arguments.images} is no whole batch of {arguments.batch}: ask for that many or more")
    if arguments.images < _LEAST_IMAGES:
        parser.error(f"--images {arguments.images}: at least {_LEAST_IMAGES} are measured")
    return arguments


def _rows(part: str, arguments: argparse.Namespace, size: int, folder: Path) -> list[Measured]:
    """Measure the ways or forms of a part that are asked for and that the device has."""
    images = _prepared(arguments.bundle, size, folder) if part == "serving" else ""
    rows = []
    for form in _PARTS[part]:
        if form in (_NOT_ON_GPU if arguments.device == "cuda" else _GPU_ONLY):
            continue
        if arguments.forms and form not in arguments.forms:
            continue
        asked = Request(
            part=part,
            form=form,
            bundle=arguments.against if form in _OF_THE_OTHER and arguments.against else arguments.bundle,
            images=images,
            expected=f"{folder}/expected",
            device=arguments.device,
            size=size,
            batch=arguments.batch,
            count=arguments.images,
            threads=arguments.threads,
        )
        rows.append(_measured(asked))
        print(f"{form} measured", file=sys.stderr)
    return rows


def _prepared(bundle: str, size: int, folder: Path) -> str:
    """Write the sample X-rays as they are prepared; return the file."""
    predictor = Predictor(open_bundle(bundle, size), "cpu")
    prepared = predictor.prepare([[sample] for sample in sorted(_SAMPLES.glob("*.dcm"))])
    file = folder / "images"
    file.write_bytes(pickle.dumps(prepared.items))
    return str(file)


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


def _table(part: str, found: Sequence[Measured], arguments: argparse.Namespace, size: int) -> str:
    base = next((one.per_second for one in found if one.form == "plain"), None)
    rows = [
        f"{part}, {arguments.bundle}; {_device(arguments.device)}, {arguments.threads} threads; "
        f"{size} x {size}, batches of {arguments.batch} (latency at batch 1)",
        f"{'form':10} {'at once':>7} {'images/s':>9} {'ratio':>6} {'p50 ms':>8} {'p95 ms':>8} {'first s':>8} "
        f"{'MiB at 1':>8} {'MiB':>7} {'gap':>9} {'pixels':>8} {'withheld':>8}",
    ]
    for one in found:
        ratio = "-" if base is None else f"{one.per_second / base:.2f}"
        rows.append(
            f"{one.form:10} {one.at_once:7} {one.per_second:9.1f} {ratio:>6} {one.p50_ms:8.2f} {one.p95_ms:8.2f} "
            f"{one.first_s:8.1f} {one.single_mib:8.0f} {one.peak_mib:7.0f} {one.gap:9.2g} {one.pixels:8.2g} "
            f"{one.withheld:8}"
        )
    return "\n".join(rows)


if __name__ == "__main__":
    main()
