"""Turns facts into findings: what is well, what is not, and what to do about it. Pure."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from backend_selector.facts import FileFacts, MachineFacts, Wishes
from backend_selector.select import select_backend
from backend_selector.sizes import gib
from engine.errors import NkatError
from engine.native import NATIVE_KERNELS

PYTHONS = ((3, 11), (3, 13))
"""The oldest and the newest Python that the project runs on."""
OLDEST_TORCH = (2, 10)
LITTLE_MEMORY = 2**30
LEAST_MEMORY = 2**28
_FAST_CPU = ({"avx2", "fma", "f16c"}, {"neon"})


class Verdict(StrEnum):
    """How bad a finding is. Only a problem keeps the server from running."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `advice` is empty where there is nothing to do."""

    subject: str
    verdict: Verdict
    text: str
    advice: str = ""


def diagnose_machine(machine: MachineFacts) -> Iterator[Finding]:
    """Findings on Python, torch, CUDA, kernels, processor and memory."""
    yield _python(machine)
    yield _torch(machine)
    yield from _cuda(machine)
    yield _kernels(machine)
    yield _cpu(machine)
    yield _memory(machine)


def diagnose_port(port: int, fault: str | None) -> Finding:
    """`fault`: why the server could not listen; None if it can."""
    if fault is None:
        return Finding("port", Verdict.OK, f"{port} is free" if port else "any free one")
    return Finding("port", Verdict.PROBLEM, fault, "stop what listens there, or start with another --port")


def diagnose_model(file: FileFacts | NkatError, machine: MachineFacts, wishes: Wishes) -> Iterator[Finding]:
    """Findings on a model, or on why it cannot be read: the file, its theta, whether it fits."""
    if isinstance(file, NkatError):
        yield Finding("model", Verdict.PROBLEM, str(file), "give a GGUF model of a supported architecture")
        return
    yield Finding(
        "model", Verdict.OK, f"{file.name}: {file.architecture}, {file.quantisation}, {gib(file.size)}"
    )
    theta = file.theta
    text = "none: the model runs as it is" if theta is None else f"rank {theta.rank}, {theta.tensors} tensors"
    try:
        choice = select_backend(file, machine, wishes)
    except NkatError as error:
        yield Finding("fit", Verdict.PROBLEM, str(error))
        return
    yield Finding("theta", Verdict.OK, text)
    yield Finding(
        "fit",
        Verdict.OK,
        f"{gib(choice.memory)} on {choice.device.value} for a context of {choice.context.value}",
    )
    for share in choice.shares:
        yield Finding("fit", Verdict.OK, f"{share.layers} layers on {share.device}: {share.describe()}")
    for warning in choice.warnings:
        yield Finding("fit", Verdict.WARNING, warning)


def _python(machine: MachineFacts) -> Finding:
    oldest, newest = (".".join(map(str, version)) for version in PYTHONS)
    if PYTHONS[0] <= _version(machine.python) <= PYTHONS[1]:
        return Finding("python", Verdict.OK, machine.python)
    return Finding("python", Verdict.PROBLEM, machine.python, f"use Python {oldest} to {newest}")


def _torch(machine: MachineFacts) -> Finding:
    oldest = ".".join(map(str, OLDEST_TORCH))
    advice = f"pip install 'torch>={oldest}'"
    if machine.torch is None:
        return Finding("torch", Verdict.PROBLEM, "not installed", advice)
    if _version(machine.torch) < OLDEST_TORCH:
        return Finding("torch", Verdict.PROBLEM, f"{machine.torch} is older than {oldest}", advice)
    return Finding("torch", Verdict.OK, machine.torch)


def _cuda(machine: MachineFacts) -> Iterator[Finding]:
    for device in machine.cuda:
        major, minor = device.capability
        memory = f"{gib(device.free)} of {gib(device.total)} free"
        yield Finding(
            "cuda", Verdict.OK, f"cuda:{device.index} {device.name}, {memory}, capability {major}.{minor}"
        )
    if machine.cuda:
        return
    if not machine.cuda_driver:
        yield Finding("cuda", Verdict.OK, "no driver: the model runs on the CPU")
    elif machine.torch is None:
        yield Finding("cuda", Verdict.WARNING, "there is a driver, but no torch to ask for devices")
    else:
        text = machine.cuda_fault or "there is a driver, but torch sees no device"
        advice = "install a torch built for this driver's CUDA, and look at CUDA_VISIBLE_DEVICES"
        yield Finding("cuda", Verdict.WARNING, text, advice)


def _kernels(machine: MachineFacts) -> Finding:
    if any(name in NATIVE_KERNELS for name in machine.kernels):
        return Finding("kernels", Verdict.OK, ", ".join(machine.kernels))
    return Finding(
        "kernels",
        Verdict.WARNING,
        "reference alone: the kernels in C++ were not built, so that replies on the CPU are slow",
        "install a C++ compiler (g++ 12 or clang 16, or newer) and then nkat once more",
    )


def _cpu(machine: MachineFacts) -> Finding:
    cpu = machine.cpu
    features = ", ".join(cpu.features) or "no vector instructions known here"
    text = f"{cpu.model}, {cpu.physical_cores} physical cores, {features}"
    if any(needed <= set(cpu.features) for needed in _FAST_CPU):
        return Finding("cpu", Verdict.OK, text)
    return Finding(
        "cpu", Verdict.WARNING, text, "expect slow replies: the processor lacks AVX2, FMA, F16C or NEON"
    )


def _memory(machine: MachineFacts) -> Finding:
    text = f"{gib(machine.available_memory)} of {gib(machine.total_memory)} available"
    advice = "close other programs, or take a small model"
    if machine.available_memory < LEAST_MEMORY:
        return Finding("memory", Verdict.PROBLEM, text, advice)
    if machine.available_memory < LITTLE_MEMORY:
        return Finding("memory", Verdict.WARNING, text, advice)
    return Finding("memory", Verdict.OK, text)


def _version(text: str) -> tuple[int, int]:
    """Major and minor version; (0, 0) for what is none."""
    numbers = re.match(r"(\d+)\.(\d+)", text)
    return (int(numbers[1]), int(numbers[2])) if numbers else (0, 0)
