"""Errors of `inference`, each with its consequence.

InferenceError
├── NotEvaluableError      the study lies outside the declared input: becomes `NotEvaluable`, never a retry
├── BundleError            a bundle cannot be used; says which file and field
└── DeviceError            the device failed in a way that may pass: the caller retries
    ├── DeviceFullError    it has no memory left: less at once may do
    └── DeviceLostError    nothing runs on it any more in this process: the caller ends, and retries in another
"""

from __future__ import annotations

from typing import ClassVar


class InferenceError(Exception):
    """Root of all errors of `inference`."""

    may_pass: ClassVar[bool] = False
    """Whether the same call may succeed later without a change of input."""


class NotEvaluableError(InferenceError):
    """The input cannot be evaluated.

    Parameters
    ----------
    code
        A stable short name, for example 'geometry.uneven'.
    reason
        A sentence without patient data: which value, what was expected.
    """

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code
        self.reason = reason


class BundleError(InferenceError):
    """A bundle cannot be used."""


class DeviceError(InferenceError):
    """The device failed (out of memory, CUDA error); another try may succeed."""

    may_pass = True


class DeviceFullError(DeviceError):
    """The device has no memory left for so much at once."""


class DeviceLostError(DeviceError):
    """The device answers nothing but errors to this process from now on; another process may use it."""
