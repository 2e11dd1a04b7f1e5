"""The device that networks run on."""

from __future__ import annotations

import torch

from inference.errors import DeviceError

DEVICE_FAILURES = (torch.OutOfMemoryError, torch.AcceleratorError, MemoryError)
"""What another try may get past."""


def resolve_device(name: str) -> torch.device:
    """Return the device called 'auto', 'cpu' or 'cuda'; 'auto' takes a GPU where there is one.

    Raises
    ------
    DeviceError
        'cuda' is asked for and there is none.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device must be auto, cpu or cuda, not {name!r}")
    has_gpu = name != "cpu" and torch.cuda.is_available()
    if name == "cuda" and not has_gpu:
        raise DeviceError("no CUDA device is available")
    return torch.device("cuda" if has_gpu else "cpu")
