"""How much memory the engine may plan with, and how much it has taken."""

import os
import resource
import sys

import torch


def available_bytes(device: torch.device) -> int:
    """Bytes that are free on the device now; for a CPU, what can be had without swapping."""
    if device.type == "cuda":
        # What torch keeps for its next tensors is as good as free.
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    # Elsewhere than on Linux only the physical size is to be had without another library.
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def peak_bytes(device: torch.device) -> int:
    """The most memory held so far: by tensors on a GPU; on a CPU by the whole process, Python included."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
