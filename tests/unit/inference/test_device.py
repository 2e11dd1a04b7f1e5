"""What errors of CUDA and its libraries mean, as torch and ONNX Runtime raise them."""

import pytest
import torch

from inference.device import check_device, device_error, using_device
from inference.errors import DeviceError, DeviceFullError, DeviceLostError

_CUDA = torch.device("cuda")


@pytest.mark.parametrize(
    "error",
    [
        torch.AcceleratorError("CUDA error: device-side assert triggered\nCUDA kernel errors might be asynchronously"),
        torch.AcceleratorError("CUDA error: an illegal memory access was encountered"),
        torch.AcceleratorError("CUDA error: unspecified launch failure"),
        torch.AcceleratorError("something that nobody knows"),
        RuntimeError("CUDA error: uncorrectable ECC error encountered"),
        RuntimeError("CUDA driver error: device not ready"),
        RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
        RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm( handle, opa, opb)`"),
        RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
        RuntimeError("cuFFT error: CUFFT_INTERNAL_ERROR"),
    ],
)
def test_an_error_that_leaves_no_context_is_a_lost_device(error: RuntimeError) -> None:
    """Every later call of the process would fail: another process may try again."""
    with pytest.raises(DeviceLostError) as caught, using_device(_CUDA):
        raise error

    assert caught.value.may_pass
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
        torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
        RuntimeError("GET was unable to find an engine to execute this computation"),
        MemoryError(),
    ],
)
def test_a_lack_of_memory_is_a_full_device(error: Exception) -> None:
    """Less at once may do, in the same process."""
    with pytest.raises(DeviceFullError), using_device(_CUDA):
        raise error


@pytest.mark.parametrize(
    "error",
    [
        torch.AcceleratorError("CUDA error: no kernel image is available for execution on the device"),
        torch.AcceleratorError("CUDA error: operation not permitted when stream is capturing"),
        RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED"),
    ],
)
def test_a_call_that_was_refused_leaves_the_device_whole(error: RuntimeError) -> None:
    """It may be tried again in the same process."""
    with pytest.raises(DeviceError) as caught, using_device(_CUDA):
        raise error

    assert type(caught.value) is DeviceError


def test_other_errors_are_none_of_the_device() -> None:
    """Shapes that do not fit are the model's fault; no word of theirs is taken for the device's."""
    error = RuntimeError("The size of tensor a (2) must match the size of tensor b (3)")

    assert device_error(error, "cuda") is None
    with pytest.raises(RuntimeError) as caught, using_device(_CUDA):
        raise error
    assert caught.value is error


def test_a_device_that_works_passes_the_check() -> None:
    """The host always does."""
    check_device("cpu")
