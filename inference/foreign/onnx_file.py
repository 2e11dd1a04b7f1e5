"""An ONNX file, run by ONNX Runtime."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from inference.errors import BundleError
from inference.foreign.network import Runner

_FOLDER_OF_FURTHER_FILES = "session.model_external_initializers_file_folder_path"
_ERRORS = 3
"""ONNX Runtime's level of its own log."""


def open_onnx(content: bytes, file: Path, device: torch.device) -> Runner:
    """Return the network on the device.

    Raises
    ------
    BundleError
        It is no ONNX file, keeps its weights in further files, which no digest pins, or the library is missing.
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
        session = onnxruntime.InferenceSession(content, options, providers)
    except Exception as error:  # its errors share no base but this
        raise BundleError(f"{file}: cannot be run by ONNX Runtime: {error}") from error
    inputs = session.get_inputs()
    if len(inputs) != 1:
        raise BundleError(f"{file}: takes {len(inputs)} inputs, expected one")
    name, kind = inputs[0].name, np.float16 if "float16" in inputs[0].type else np.float32

    def run(values: Tensor) -> object:
        try:
            given = session.run(None, {name: values.detach().cpu().numpy().astype(kind, copy=False)})
        except Exception as error:  # as above
            raise BundleError(f"ONNX Runtime refuses the input {tuple(values.shape)}: {error}") from error
        return [torch.from_numpy(array).to(values.device) for array in given]

    return run
