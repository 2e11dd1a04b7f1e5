"""Frames of an instance as stored values, by pydicom's decoders.

Each transfer syntax has one plug-in, chosen for what it does with damaged data: pillow, pyjpegls, openjpeg and
pydicom's own RLE raise; gdcm, the only free reader of lossless JPEG, aborts the process or worse. It therefore works
in a process of its own (`python -m inference.decode`), whose death is one more reason why pixels are undecodable.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import HTJ2K as HTJ2K_LOSSY
from pydicom.uid import JPEG2000 as JPEG2000_LOSSY
from pydicom.uid import (
    UID,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from inference.instance import MALFORMED

PLUGINS = {
    JPEGBaseline8Bit: "pillow",
    JPEGExtended12Bit: "pillow",
    JPEGLossless: "gdcm",
    JPEGLosslessSV1: "gdcm",
    JPEGLSLossless: "pyjpegls",
    JPEGLSNearLossless: "pyjpegls",
    JPEG2000Lossless: "pylibjpeg",
    JPEG2000_LOSSY: "pylibjpeg",
    HTJ2KLossless: "pylibjpeg",
    HTJ2KLosslessRPCL: "pylibjpeg",
    HTJ2K_LOSSY: "pylibjpeg",
    RLELossless: "pydicom",
}
DECODED_APART = frozenset({JPEGLossless, JPEGLosslessSV1})
INSTANCE_LIMIT_S = 300.0
"""How long the other process may take for one instance before it is ended."""


class DecoderDiedError(ValueError):
    """The decoding process ended, or was ended, before it had given a whole frame."""


def iter_frames(ds: Dataset) -> Iterator[NDArray[Any]]:
    """Decode all frames in order, in this process.

    Yields
    ------
    (Y, X) integers as stored, bits above the stored ones not cleared.

    Raises
    ------
    One of `inference.instance.MALFORMED`
        When the pixel data cannot be decoded.
    """
    syntax = UID(ds.file_meta.TransferSyntaxUID)
    decoder = get_decoder(syntax)
    frames = decoder.iter_array(
        ds,
        raw=True,
        allow_excess_frames=False,
        correct_unused_bits=False,
        decoding_plugin=PLUGINS.get(syntax, ""),
    )
    for frame, _ in frames:
        yield frame


class SeparateDecoder:
    """A process that decodes instances named to it; started at the first one, ended on leaving the context."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end()

    def iter_frames(self, path: Path, shape: tuple[int, int]) -> Iterator[NDArray[Any]]:
        """Decode all frames of a file in order; yields and raises as the function of this name.

        Raises
        ------
        DecoderDiedError
            Besides the others; the next call starts a new process.
        """
        process = self._process = self._process or _start()
        if process.stdin is None or process.stdout is None:
            raise DecoderDiedError("no pipes")
        watchdog = threading.Timer(INSTANCE_LIMIT_S, process.kill)
        watchdog.start()
        is_done = False
        try:
            process.stdin.write(json.dumps(str(path)).encode() + b"\n")
            process.stdin.flush()
            while (frame := _receive(process.stdout, shape)) is not None:
                yield frame
            is_done = True
        except BrokenPipeError:
            raise DecoderDiedError("no reader") from None
        finally:
            watchdog.cancel()
            if not is_done:
                self._end()

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def _start() -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "inference.decode"]
    return subprocess.Popen(  # noqa: S603 - this interpreter and this module, nothing from outside
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )


def _receive(pipe: IO[bytes], shape: tuple[int, int]) -> NDArray[Any] | None:
    """Read one frame; None at the end of the instance."""
    head = pipe.readline()
    if not head.endswith(b"\n"):
        raise DecoderDiedError("no answer")
    said = json.loads(head)
    if "error" in said:
        raise ValueError(said["error"])
    if "dtype" not in said:
        return None
    dtype = np.dtype(said["dtype"])
    if tuple(said["shape"]) != shape or dtype.kind not in "iu":
        raise ValueError("a frame's size is not the one of the header")
    length = shape[0] * shape[1] * dtype.itemsize
    content = bytearray(pipe.read(length))
    if len(content) != length:
        raise DecoderDiedError("half an answer")
    return np.frombuffer(content, dtype=dtype).reshape(shape)


def serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    """Answer each line, a JSON path, with its frames; the loop of the other process."""
    for line in requests:
        try:
            for frame in iter_frames(pydicom.dcmread(json.loads(line))):
                _send(answers, {"dtype": frame.dtype.str, "shape": frame.shape})
                answers.write(np.ascontiguousarray(frame).tobytes())
            _send(answers, {})
        except MALFORMED as error:
            _send(answers, {"error": type(error).__name__})


def _send(pipe: IO[bytes], message: dict[str, Any]) -> None:
    pipe.write(json.dumps(message).encode() + b"\n")
    pipe.flush()


def main() -> None:
    """Serve standard input; standard output is kept from the libraries, which print to it."""
    warnings.simplefilter("ignore")
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
