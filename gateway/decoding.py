"""Compressed frames to pixels, in a process of their own: `python -m gateway.decoding`; files read within bounds.

The decoders are C and C++ libraries fed with what strangers sent. One that aborts, or allocates what a codestream
declares, ends a process that serves nobody else: its death is one more reason why a frame cannot be shown.
"""

from __future__ import annotations

import functools
import json
import math
import os
import queue
import resource
import struct
import subprocess
import sys
import threading
import warnings
import weakref
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID

from gateway.elements import DEFLATED
from gateway.errors import CannotUnderstandError
from gateway.header import read_part10
from gateway.quiet import quietly

MALFORMED = (
    ArithmeticError,
    AttributeError,
    BytesLengthException,
    EOFError,
    InvalidDicomError,
    LookupError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""What pydicom and its decoders raise on data they cannot read. OSError is not among them: a disk fault may pass."""

_JPEG, _JPEG_LS, _J2K = "1.2.840.10008.1.2.4.", "1.2.840.10008.1.2.4.8", "1.2.840.10008.1.2.4."
PLUGINS = {
    **{f"{_JPEG}{process}": "pillow" for process in (50, 51)},
    **{f"{_JPEG}{process}": "gdcm" for process in (57, 70)},
    **{f"{_JPEG_LS}{process}": "pyjpegls" for process in (0, 1)},
    **{f"{_J2K}{process}": "pylibjpeg" for process in (90, 91, 201, 202, 203)},
    "1.2.840.10008.1.2.5": "pydicom",
}
"""Transfer syntax UID -> the plug-in of pydicom that decodes it."""
_FRAME_LIMIT_S = 60.0
"""How long the process may take for one request before it is ended."""
_MEMORY_LIMIT = 4 << 30
_IDLE_KEPT = 2
_AT_ONCE = 8
_BYTES_LIMIT = 1 << 30
"""Of the pixels that one request gives: a few kilobytes of a codestream may declare any number."""
_INFLATED_LIMIT = 1 << 29
_CHUNK = 1 << 20


class UndecodableError(ValueError):
    """The pixel data cannot be decoded: damaged, or of a kind that no free decoder reads."""


class DecoderDiedError(UndecodableError):
    """The decoding process ended, or was ended, before it had given a whole frame."""


@dataclass(frozen=True, slots=True)
class DecodedFrame:
    """One frame."""

    pixels: NDArray[Any]
    """(Y, X) or (Y, X, samples)."""
    photometric: str
    """Photometric Interpretation of `pixels`: YBR of any kind has become RGB."""


class FrameDecoder:
    """Hands requests to processes that decode, which end with it; safe to use from any thread.

    Parameters
    ----------
    most_bytes
        Of the pixels that one request gives.
    """

    def __init__(self, most_bytes: int = _BYTES_LIMIT) -> None:
        self._most_bytes = most_bytes
        self._room = threading.BoundedSemaphore(_AT_ONCE)
        self._idle: queue.LifoQueue[subprocess.Popen[bytes]] = queue.LifoQueue(_IDLE_KEPT)
        weakref.finalize(self, _end_all, self._idle)

    def frames(self, path: Path, indices: Sequence[int]) -> list[DecodedFrame]:
        """Decode frames of a Part 10 file, in the order given (from 0).

        Raises
        ------
        UndecodableError
            One of them cannot be decoded, or they are too large.
        """
        with self._room:
            return self._frames(path, indices)

    def _frames(self, path: Path, indices: Sequence[int]) -> list[DecodedFrame]:
        process = self._take()
        watchdog = threading.Timer(_FRAME_LIMIT_S, process.kill)
        watchdog.start()
        is_done = False
        try:
            assert process.stdin is not None and process.stdout is not None  # noqa: S101 # asked for below
            process.stdin.write(json.dumps([str(path), list(indices)]).encode() + b"\n")
            process.stdin.flush()
            frames = list(_received(process.stdout, len(indices), self._most_bytes))
            is_done = True
        except DecoderDiedError:
            raise
        except UndecodableError:
            is_done = True  # it said so itself, and is ready for the next
            raise
        except BrokenPipeError:
            raise DecoderDiedError("the decoder ended") from None
        else:
            return frames
        finally:
            watchdog.cancel()
            self._give_back(process, is_done)

    def _take(self) -> subprocess.Popen[bytes]:
        try:
            process = self._idle.get_nowait()
        except queue.Empty:
            return _start()
        return process if process.poll() is None else _start()

    def _give_back(self, process: subprocess.Popen[bytes], is_done: bool) -> None:
        try:
            if is_done:
                self._idle.put_nowait(process)
                return
        except queue.Full:
            pass
        _end(process)


def _start() -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "gateway.decoding"]
    return subprocess.Popen(  # noqa: S603 # this interpreter and this module, nothing from outside
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )


def _end_all(idle: queue.LifoQueue[subprocess.Popen[bytes]]) -> None:
    while not idle.empty():
        _end(idle.get_nowait())


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate()


def is_of_disk(error: OSError) -> bool:
    """Say whether an OSError tells of the disk: pydicom raises one without a number where a sequence is broken."""
    return error.errno is not None


@contextmanager
def parsing() -> Iterator[None]:
    """Silence pydicom, and let all that it raises on broken data be one of `MALFORMED`: an OSError is the disk's."""
    with quietly():
        try:
            yield
        except OSError as error:
            if is_of_disk(error):
                raise
            raise InvalidDicomError("a sequence is broken") from error


def read_file(source: Path | BinaryIO, *, most_inflated: int = _INFLATED_LIMIT, **options: Any) -> Dataset:
    """Return the data set of a Part 10 file, as `pydicom.dcmread` with these options does, which inflates any bomb.

    Raises
    ------
    OSError
        The file cannot be read.
    One of `MALFORMED`
        It cannot be parsed, or a deflated data set is longer than `most_inflated` bytes.
    """
    if isinstance(source, Path):
        with source.open("rb") as stream:
            return read_file(stream, most_inflated=most_inflated, **options)
    try:
        part10 = read_part10(source)
    except CannotUnderstandError as error:
        raise InvalidDicomError(error.comment) from error
    if part10.transfer_syntax_uid in DEFLATED:
        source.seek(part10.data_set_offset)
        _require_inflatable(source, most_inflated)
    source.seek(0)
    return pydicom.dcmread(source, **options)


def _require_inflatable(stream: BinaryIO, most: int) -> None:
    inflater, length = zlib.decompressobj(-zlib.MAX_WBITS), 0
    while not inflater.eof and (chunk := inflater.unconsumed_tail or stream.read(_CHUNK)):
        length += len(inflater.decompress(chunk, _CHUNK))
        if length > most:
            raise ValueError(f"the deflated data set is longer than {most} bytes")


def _received(pipe: IO[bytes], count: int, most: int) -> Iterator[DecodedFrame]:
    left = most
    for _ in range(count):
        frame = _receive(pipe, left)
        left -= frame.pixels.nbytes
        yield frame


def _receive(pipe: IO[bytes], most: int) -> DecodedFrame:
    head = pipe.readline()
    if not head.endswith(b"\n"):
        raise DecoderDiedError("the decoder ended")
    said = json.loads(head)
    if "error" in said:
        raise UndecodableError(said["error"])
    dtype = np.dtype(said["dtype"])
    length = math.prod(said["shape"]) * dtype.itemsize
    if length > most:
        raise DecoderDiedError("the decoded frames are too large")  # it is ended: it would go on writing
    content = pipe.read(length)
    if len(content) != length:
        raise DecoderDiedError("the decoder ended")
    return DecodedFrame(np.frombuffer(content, dtype=dtype).reshape(said["shape"]), said["photometric"])


def serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    """Answer each line, JSON of a path and of frame indices, with the frames; the loop of the other process."""
    read = functools.lru_cache(maxsize=1)(pydicom.dcmread)  # the frames of one file are often asked for one by one
    for line in requests:
        path, indices = json.loads(line)
        try:
            dataset = read(path)
            syntax = UID(dataset.file_meta.TransferSyntaxUID)
            frames = get_decoder(syntax).iter_array(
                dataset, indices=indices, decoding_plugin=PLUGINS.get(syntax, ""), allow_excess_frames=False
            )
            for frame, about in frames:
                said = {
                    "dtype": frame.dtype.str,
                    "shape": frame.shape,
                    "photometric": str(about["photometric_interpretation"]),
                }
                answers.write(json.dumps(said).encode() + b"\n")
                answers.write(np.ascontiguousarray(frame).tobytes())
        except MALFORMED as error:
            answers.write(json.dumps({"error": type(error).__name__}).encode() + b"\n")
        except (MemoryError, OSError) as error:
            answers.write(json.dumps({"error": type(error).__name__}).encode() + b"\n")
        answers.flush()


def main() -> None:
    """Serve standard input; standard output is kept from the libraries, which print to it."""
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_LIMIT, _MEMORY_LIMIT))
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
