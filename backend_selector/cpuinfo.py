"""Reads the text of Linux's /proc/cpuinfo."""

import re
from collections.abc import Collection, Iterator, Mapping

from backend_selector.facts import CpuFacts

FEATURES: Mapping[str, str] = {
    "avx2": "avx2",
    "fma": "fma",
    "f16c": "f16c",
    "avx512f": "avx512f",
    "avx512_vnni": "avx512_vnni",
    "avx_vnni": "avx_vnni",
    "neon": "neon",
    "asimd": "neon",  # what a 64-bit ARM kernel calls it
}
"""Features that kernels care about, by the kernel's names for them."""


def read_cpuinfo(text: str, allowed: Collection[int]) -> CpuFacts:
    """The processors of `text` that are among the numbers in `allowed`.

    Two numbers that share a core count once. Where the text does not tell, as on ARM and where there is no
    such file, each number counts as a core.
    """
    processors = [block for block in _blocks(text) if int(block["processor"]) in allowed]
    cores = {(block.get("physical id"), block.get("core id"), _alone(block)) for block in processors}
    names = (block["model name"] for block in processors if "model name" in block)
    flags = {
        flag for block in processors for key in ("flags", "Features") for flag in block.get(key, "").split()
    }
    return CpuFacts(
        model=next(names, "unknown"),
        physical_cores=max(1, len(cores) or len(allowed)),
        features=tuple(dict.fromkeys(feature for flag, feature in FEATURES.items() if flag in flags)),
    )


def _blocks(text: str) -> Iterator[dict[str, str]]:
    for part in re.split(r"\n\s*\n", text):
        pairs = (line.partition(":") for line in part.splitlines())
        block = {key.strip(): value.strip() for key, _, value in pairs}
        if block.get("processor", "").isdecimal():
            yield block


def _alone(block: dict[str, str]) -> str:
    """Tells a processor from the others if its block does not say on which core it is."""
    return "" if "core id" in block else block["processor"]
