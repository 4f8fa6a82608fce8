"""Small tensors on their way to a device."""

import torch


def sent(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The same values on the device, in a copy that nobody waits for; the tensor itself is not to be changed.

    torch waits for a card with every plain copy, until all that was launched there is done.
    """
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
