"""The device that networks run on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from inference.errors import DeviceError, DeviceFullError, DeviceLostError

_FULL = (
    "DefaultCPUAllocator",
    "could not create a primitive",
    "could not create a memory",
    "bad_alloc",
    "out of memory",
    "_ALLOC_FAILED",
    "_ALLOCATION_FAILED",
    "unable to find an engine",
    "Unable to find a valid cuDNN algorithm",
)
"""What torch, oneDNN, cuBLAS and cuDNN say where there is no memory left: they have no class of their own for that."""
_OF_DEVICE = re.compile(
    r"CUDA(?: driver| runtime)? (?:error|failure)[^\n]{0,80}|(?:CUBLAS|CUDNN|CUSOLVER|CUSPARSE)_STATUS_\w+|CUFFT_\w+"
)
"""Errors of the device as torch and ONNX Runtime tell them, some of them as a plain RuntimeError."""
_UNHARMED = (
    "invalid argument",
    "invalid configuration",
    "invalid device function",
    "no kernel image",
    "not supported",
    "captur",
    "_NOT_SUPPORTED",
    "_BAD_PARAM",
    "_INVALID_VALUE",
    "_ARCH_MISMATCH",
)
"""Calls that the device refused and that leave its context whole; after any other error nothing runs in it any more."""


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
    """Turn what fails on the device into what `device_error` says of it; other errors pass as they are."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        failure = device_error(error, device.type)
        if failure is None:
            raise
        raise failure from error


def device_error(error: Exception, where: str) -> DeviceError | None:
    """Return what an error of a library means for the device; None where it is none of the device's.

    Parameters
    ----------
    where
        What failed, for the message.
    """
    said = str(error)
    name = type(error).__name__
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or any(words in said for words in _FULL):
        return DeviceFullError(f"{where}: no memory left ({name})")
    told = _OF_DEVICE.search(said)
    if told is None and not isinstance(error, torch.AcceleratorError):
        return None
    reason = name if told is None else told[0]
    is_whole = any(words in reason for words in _UNHARMED)
    return (DeviceError if is_whole else DeviceLostError)(f"{where}: {reason}")


def check_device(name: str) -> None:
    """Have the device of this name do a little work; DeviceError where it cannot."""
    device = resolve_device(name)
    with using_device(device):
        torch.ones(1, device=device).add_(1).item()


def onto_device(values: Tensor, device: torch.device) -> Tensor:
    """Bring (B, C, Y, X) values of the host to the device, channels last; to a GPU without waiting for the copy."""
    pinned = values.pin_memory() if device.type == "cuda" else values
    return pinned.to(device, non_blocking=True, memory_format=torch.channels_last)
