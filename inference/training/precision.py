"""Mixed precision: convolutions in fewer bits, weights, losses and averages in float32.

Micikevicius et al., "Mixed Precision Training", ICLR 2018. bfloat16 has float32's range and needs nothing more; float16
has not: the loss is scaled so that small gradients do not vanish, and a step whose gradients overflowed is left out.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from inference.errors import BundleError

FLOAT32, BFLOAT16, FLOAT16 = PRECISIONS = ("float32", "bfloat16", "float16")
LEAST_CPU_SIDE = 64
"""On the CPU, torch 2.15 leaves the bfloat16 gradient of those places of a kernel unwritten that never touch the image:
so with stride 32 even the coarsest map needs two places along each side."""
_TYPES = {BFLOAT16: torch.bfloat16, FLOAT16: torch.float16}


def takes_bfloat16_on_cpu(network: nn.Module) -> bool:
    """Return whether the CPU trains these convolutions of volumes in bfloat16.

    torch 2.15 leaves parts of the gradients of 3 x 1 x 1 convolutions unwritten there: NaN at times.
    """
    kernels = [module.kernel_size for module in network.modules() if isinstance(module, nn.Conv3d)]
    return all(len(set(kernel)) == 1 for kernel in kernels)


class Precision:
    """How a step is computed.

    Parameters
    ----------
    name
        One of `PRECISIONS`.
    device
        Where the network is.
    least_side
        Side of the smallest image that the network is shown.

    Raises
    ------
    BundleError
        There is no such precision, or not on this device.
    """

    def __init__(self, name: str, device: torch.device, least_side: int) -> None:
        if name not in PRECISIONS:
            raise BundleError(f"training.loop.precision: {name!r} is none of {', '.join(PRECISIONS)}")
        if name == FLOAT16 and device.type != "cuda":
            raise BundleError(f"training.loop.precision: {FLOAT16} is for GPUs; {BFLOAT16} runs on the CPU, too")
        if name == BFLOAT16 and device.type == "cpu" and least_side < LEAST_CPU_SIDE:
            needed = f"on the CPU {BFLOAT16} needs images of {LEAST_CPU_SIDE} pixels a side at the smallest scale"
            raise BundleError(f"training.loop.precision: {needed}, these have {least_side}; {FLOAT32} takes any")
        self.name, self.device = name, device
        self._scaler = torch.amp.GradScaler(device.type, enabled=name == FLOAT16)

    def computing(self) -> AbstractContextManager[Any]:
        """Return the context in which the network runs."""
        is_mixed = self.name != FLOAT32
        return torch.autocast(self.device.type, _TYPES.get(self.name, torch.bfloat16), enabled=is_mixed)

    def step(
        self, loss: Tensor, optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], norm: float
    ) -> float:
        """Take one step down the gradient of `loss`, its norm over all `parameters` clipped to `norm`.

        Returns
        -------
        The norm before; not finite where the gradient overflowed.
        """
        optimizer.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]  # torch leaves it without types
        self._scaler.unscale_(optimizer)
        found = torch.nn.utils.clip_grad_norm_(parameters, norm)
        self._scaler.step(optimizer)
        self._scaler.update()
        return float(found)

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs."""
        return self._scaler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        if state:
            self._scaler.load_state_dict(state)
