"""The devices that torch knows, by the names that settings give them."""

import torch

from engine.errors import ConfigError


def torch_device(name: str) -> torch.device:
    """The torch device of a setting; raises `ConfigError`."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"unknown device {name!r}: use auto, cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"unsupported device {name!r}: use auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"no device {name!r}: torch sees {torch.cuda.device_count()} CUDA devices")
    return device
