"""Small tensors on their way to a device."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch


def sent(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The same values on the device, in a copy that nobody waits for; the tensor itself is not to be changed.

    torch waits for a card with every plain copy, until all that was launched there is done.
    """
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def sent_together(parts: Sequence[npt.NDArray[np.int32]], device: torch.device) -> list[torch.Tensor]:
    """The same arrays on the device, in their shapes, brought there in one copy that nobody waits for."""
    joined = torch.from_numpy(np.concatenate([part.ravel() for part in parts]))
    moved = torch.split(sent(joined, device), [part.size for part in parts])
    return [tensor.view(part.shape) for tensor, part in zip(moved, parts, strict=True)]
