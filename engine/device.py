"""The devices that torch knows, by the names that settings give them, and a model's layers on several."""

import re

import torch

from engine.errors import ConfigError

MOST_PLACES = 16
"""Devices that a model may be split over; llama.cpp's figure."""

Places = tuple[tuple[torch.device, int], ...]
"""Devices in the order in which a step comes by, and how many layers each has."""

_PLACE = re.compile(r"(cpu|cuda:\d{1,4})=(\d{1,4})")


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


def model_places(name: str, layers: int) -> Places:
    """Where a model of so many layers is, by the name of one device or of several, `cpu=9,cuda:0=24`.

    The last of several may have no layer: the output matrix is there in any case. Raises `ConfigError`.
    """
    if "=" not in name:
        return ((torch_device(name), layers),)
    parts = name.split(",")
    found = [_PLACE.fullmatch(part) for part in parts[: MOST_PLACES + 1]]
    places = tuple((place[1], int(place[2])) for place in found if place is not None)
    devices = {device for device, _ in places}
    # torch sees no second processor, so that a device that comes twice is a slip.
    if not 2 <= len(places) == len(parts) == len(devices) <= MOST_PLACES:
        raise ConfigError(
            f"{name!r:.80} is no placement: name 2 to {MOST_PLACES} devices, each once, with their layers, "
            "as in cpu=9,cuda:0=24"
        )
    if sum(count for _, count in places) != layers or any(count == 0 for _, count in places[:-1]):
        raise ConfigError(
            f"{name!r:.80} does not place the model's {layers} layers: the numbers must add up to that, and "
            "none but the last may be 0"
        )
    return tuple((torch_device(device), count) for device, count in places)


def make_current(device: torch.device) -> None:
    """Let this thread launch kernels on the device, if it is a CUDA device.

    torch's own operations find the device of their tensors; Triton takes the thread's current one.
    """
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
