"""The KoboldCpp command line that serves the same model. Pure."""

from collections.abc import Iterator
from pathlib import Path

from backend_selector.facts import FileFacts, Wishes
from backend_selector.placement import Placement

_SHORTEST, _LONGEST = 256, 262144
"""Contexts that KoboldCpp takes."""


def koboldcpp_command(
    file: FileFacts, placement: Placement, *, star: bool, context: int, threads: int, wishes: Wishes
) -> tuple[str, ...]:
    """The arguments, program first. `star`: theta counts, so that an exported adapter goes with the model."""
    command = ["koboldcpp", "--model", str(plain_model(file)), "--skiplauncher"]
    command += ["--contextsize", str(min(max(context, _SHORTEST), _LONGEST)), "--threads", str(threads)]
    command += _placement_flags(placement)
    if wishes.quantkv:
        command += ["--quantkv", str(wishes.quantkv)]
    if star:
        command += ["--lora", str(adapter(file))]
    return tuple(command)


def _placement_flags(placement: Placement) -> list[str]:
    """Which GPUs, how many layers, and if there are several what share of them each has."""
    layers = {
        int(stage.device.removeprefix("cuda:")): stage.blocks
        for stage in placement.stages
        if stage.device != "cpu"
    }
    if not layers:
        return ["--usecpu"]
    count = ["--gpulayers", str(placement.gpu_layers)]
    if len(layers) == 1:
        return ["--usecublas", str(next(iter(layers))), *count]
    layers[max(layers)] += 1
    shares = [str(layers.get(number, 0)) for number in range(max(layers) + 1)]
    return ["--usecublas", *count, "--tensor_split", *shares]


def koboldcpp_needs(file: FileFacts, *, star: bool) -> Iterator[str]:
    """What the command line names and may still have to be made, one sentence each."""
    if star:
        yield f"KoboldCpp wants theta as an adapter: nkat convert --export-lora {adapter(file)}"
    if file.surplus:
        yield f"KoboldCpp refuses files with theta inside: it wants the plain model, {plain_model(file)}"


def plain_model(file: FileFacts) -> Path:
    """The model without theta's tensors, which KoboldCpp refuses: the file itself, or that beside it."""
    if not file.surplus:
        return file.path
    return file.path.with_suffix(".base.gguf" if file.path.suffix == ".gguf" else ".gguf")


def adapter(file: FileFacts) -> Path:
    """Where theta as a LoRA adapter is looked for."""
    return file.path.with_suffix(".lora.gguf")
