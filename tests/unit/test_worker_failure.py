"""Which failures may pass, and what is told of them."""

import errno

import pydicom
import pytest

from gateway.errors import BrokerAwayError, ConfigurationError, DatabaseAwayError
from gateway.worker.failure import describe, may_pass
from inference.errors import BundleError, DeviceError


@pytest.mark.parametrize(
    "error",
    [
        DeviceError("x"),
        DatabaseAwayError("x"),
        BrokerAwayError("x"),
        MemoryError(),
        OSError(errno.ENOSPC, "No space"),
        OSError(errno.EROFS, "Read-only"),
    ],
)
def test_faults_of_the_machine_may_pass(error: Exception) -> None:
    """The device, the services, the memory and the disk come back."""
    assert may_pass(error)


@pytest.mark.parametrize(
    "error", [BundleError("x"), ConfigurationError("x"), ValueError("x"), FileNotFoundError(errno.ENOENT, "No file")]
)
def test_faults_of_the_input_do_not_pass(error: Exception) -> None:
    """The same input fails again."""
    assert not may_pass(error)


def test_our_own_messages_are_told() -> None:
    """They hold no patient data by their contract."""
    assert describe(BundleError("weights digest differs")) == "BundleError: weights digest differs"


def test_messages_of_libraries_are_not_told() -> None:
    """Pydicom quotes the value that it cannot read; the reason names class and place instead."""
    with pytest.raises(ValueError, match="Doe") as caught:
        pydicom.valuerep.DT("Doe^Jane")

    reason = describe(caught.value)

    assert reason.startswith("ValueError in ")
    assert "Doe" not in reason


def test_an_operating_system_error_tells_no_path() -> None:
    """The path could come from a sender."""
    assert (
        describe(OSError(errno.ENOSPC, "No space left on device", "/x/Doe.dcm")) == "OSError: No space left on device"
    )
