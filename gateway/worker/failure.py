"""What becomes of a job whose work raised: whether another try makes sense, and what an operator reads."""

from __future__ import annotations

import errno

from gateway.errors import GatewayError
from gateway.place import place
from inference.errors import InferenceError

_PASSING = {
    errno.EAGAIN,
    errno.EBUSY,
    errno.EDQUOT,
    errno.EIO,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.ENOSPC,
    errno.EROFS,
    errno.ESTALE,
    errno.ETIMEDOUT,
}
"""Faults of disk and machine that an operator or time may mend."""
_DISK = {errno.EDQUOT, errno.ENOSPC, errno.EROFS}


def may_pass(error: Exception) -> bool:
    """Say whether the same work may succeed later without a change of input."""
    if isinstance(error, GatewayError | InferenceError):
        return error.may_pass
    if isinstance(error, OSError):
        return error.errno in _PASSING
    return isinstance(error, MemoryError)


def is_of_disk(error: Exception) -> bool:
    """Say whether results cannot be written: the job is not at fault, and is tried until they can be."""
    return isinstance(error, OSError) and error.errno in _DISK


def describe(error: Exception) -> str:
    """Return a reason without patient data.

    Messages of our own errors hold none. Those of libraries may quote an attribute's value: of these the class and
    the place are told.
    """
    name = type(error).__name__
    if isinstance(error, GatewayError | InferenceError):
        return f"{name}: {error}"
    if isinstance(error, OSError) and error.strerror:
        return f"{name}: {error.strerror}"
    return f"{name} in {place(error)}"
