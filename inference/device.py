"""The device that networks run on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from inference.errors import DeviceError, DeviceFullError

_FULL_HOST = ("DefaultCPUAllocator", "could not create a primitive", "could not create a memory", "bad_alloc")
"""What torch and its oneDNN say where the host has no memory left: they have no class of their own for that."""


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


@contextmanager
def using_device(device: torch.device) -> Iterator[None]:
    """Turn what fails on the device into DeviceError, a lack of memory into DeviceFullError."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise DeviceFullError(f"{device.type}: {type(error).__name__}") from error
    except torch.AcceleratorError as error:
        raise DeviceError(f"{device.type}: {type(error).__name__}") from error
    except RuntimeError as error:
        if not any(words in str(error) for words in _FULL_HOST):
            raise
        raise DeviceFullError(f"{device.type}: out of memory") from error


def onto_device(values: Tensor, device: torch.device) -> Tensor:
    """Bring (B, C, Y, X) values of the host to the device, channels last; to a GPU without waiting for the copy."""
    pinned = values.pin_memory() if device.type == "cuda" else values
    return pinned.to(device, non_blocking=True, memory_format=torch.channels_last)
