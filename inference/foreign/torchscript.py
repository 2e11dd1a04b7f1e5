"""A TorchScript file: a program in torch's own format, which holds no Python pickle."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import torch

from inference.errors import BundleError
from inference.foreign.network import Runner


def open_torchscript(content: bytes, file: Path, device: torch.device) -> Runner:
    """Return the program on the device, ready to evaluate; BundleError where it is none."""
    try:
        with warnings.catch_warnings():
            # torch tells that it will no longer develop the format; it goes on reading it.
            for kind in (DeprecationWarning, FutureWarning):
                warnings.simplefilter("ignore", kind)
            module = torch.jit.load(io.BytesIO(content), map_location=device)  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise BundleError(f"{file}: is no TorchScript file: {reason}") from error
    runner: Runner = module.eval()
    return runner
