"""How much memory the engine may plan with."""

import os

import torch


def available_bytes(device: torch.device) -> int:
    """Bytes that are free on the device now; for a CPU, what can be had without swapping."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    # Elsewhere than on Linux only the physical size is to be had without another library.
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
