"""An ONNX file, run by ONNX Runtime."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inference.device import device_error
from inference.errors import BundleError, DeviceFullError
from inference.foreign.network import Runner

_FOLDER_OF_FURTHER_FILES = "session.model_external_initializers_file_folder_path"
_ERRORS = 3
"""ONNX Runtime's level of its own log."""
_FULL = ("failed to allocate memory", "bad allocation", "bad_alloc", "out of memory")
"""What ONNX Runtime says where there is no memory left: it has no class of its own for that."""


def open_onnx(content: bytes, file: Path, device: torch.device) -> Runner:
    """Return the network on the device; raises what `open_session` raises."""
    session = open_session(content, file, device)
    inputs = session.get_inputs()
    if len(inputs) != 1:
        raise BundleError(f"{file}: takes {len(inputs)} inputs, expected one")
    name, kind = inputs[0].name, np.float16 if "float16" in inputs[0].type else np.float32

    def run(values: Tensor) -> object:
        given = run_session(session, file, {name: values.detach().cpu().numpy().astype(kind, copy=False)})
        return [torch.from_numpy(array).to(values.device) for array in given]

    return run


def run_session(session: Any, file: Path, inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
    """Return the outputs of a session.

    Raises
    ------
    BundleError
        The inputs do not fit, or an output is no array of numbers.
    DeviceError
        The device failed; DeviceFullError: there is no memory for so much at once.
    """
    try:
        given = session.run(None, dict(inputs))
    except Exception as error:  # its errors share no base but this
        _raise_of_device(error, file)
        shapes = ", ".join(str(list(values.shape)) for values in inputs.values())
        raise BundleError(f"{file}: ONNX Runtime refuses {shapes}: {error}") from error
    if not all(isinstance(values, np.ndarray) and values.dtype.kind in "fiu" for values in given):
        raise BundleError(f"{file}: gives what is no array of numbers")
    return list(given)


def _raise_of_device(error: Exception, file: Path) -> None:
    """Raise DeviceError where an error of ONNX Runtime is one of the device's."""
    if isinstance(error, MemoryError) or any(words in str(error).lower() for words in _FULL):
        raise DeviceFullError(f"{file}: ONNX Runtime has no memory left") from error
    if (failure := device_error(error, file.name)) is not None:
        raise failure from error


def open_session(content: bytes, file: Path, device: torch.device) -> Any:
    """Return a session of ONNX Runtime, which ships no types.

    Raises
    ------
    BundleError
        It is no ONNX file, keeps its weights in further files, which no digest pins, or the library is missing.
    DeviceError
        The device failed; DeviceFullError: there is no memory for it.
    """
    try:
        import onnxruntime  # noqa: PLC0415 # an extra
    except ModuleNotFoundError as error:
        raise BundleError("onnxruntime is not installed: pip install 'hybridmed-gateway[onnx]'") from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERRORS
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry(_FOLDER_OF_FURTHER_FILES, str(Path(os.devnull) / "none"))
    wanted = ["CUDAExecutionProvider"] if device.type == "cuda" else []
    known = set(onnxruntime.get_available_providers())
    providers = [name for name in wanted if name in known] + ["CPUExecutionProvider"]
    try:
        return onnxruntime.InferenceSession(content, options, providers)
    except Exception as error:  # as above
        _raise_of_device(error, file)
        raise BundleError(f"{file}: cannot be run by ONNX Runtime: {error}") from error
