"""The KoboldCpp command line that serves the same model. Pure."""

from collections.abc import Iterator
from pathlib import Path

from backend_selector.facts import FileFacts

_SHORTEST, _LONGEST = 256, 262144
"""Contexts that KoboldCpp takes."""


def koboldcpp_command(
    file: FileFacts, *, star: bool, device: str, context: int, threads: int
) -> tuple[str, ...]:
    """The arguments, program first. `star`: theta counts, so that an exported adapter goes with the model."""
    command = ["koboldcpp", "--model", str(plain_model(file)), "--skiplauncher"]
    command += ["--contextsize", str(min(max(context, _SHORTEST), _LONGEST)), "--threads", str(threads)]
    if device == "cpu":
        command += ["--usecpu"]
    else:
        # One more than there are layers: the output matrix counts as one.
        command += ["--usecublas", device.removeprefix("cuda:"), "--gpulayers", str(file.layers + 1)]
    if star:
        command += ["--lora", str(adapter(file))]
    return tuple(command)


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
