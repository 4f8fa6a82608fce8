"""What the machine allows, for a run without a peer: memory bandwidth and matrix products.

python -m benchmarks.limits THREADS, then questions on stdin: bandwidth, products.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

from benchmarks.child import Child, answer
from benchmarks.sizes import PROMPT_TOKENS
from engine.gguf import GGUFFile

_BYTES = 256 << 20
_SIZE = 1024
_TRIES = 5


@dataclass(frozen=True, slots=True)
class Work:
    """What a model must at least read and compute."""

    bytes_per_token: int
    """Of the file's tensors, that decoding reads: all but the embedding, unless it is the output too."""
    flops_per_token: int
    """Of a prompt: two for each weight of the layers' matrices."""

    @classmethod
    def of(cls, file: GGUFFile) -> Self:
        """The work of an open model."""
        tied = "output.weight" not in file.tensors
        return cls(
            sum(x.n_bytes for x in file.tensors.values() if tied or x.name != "token_embd.weight"),
            2 * sum(x.n_elements for x in file.tensors.values() if x.name[:4] == "blk." and len(x.shape) > 1),
        )


class Limits:
    """Tokens/s that the machine would allow the model if nothing else took time. Measured at each call."""

    def __init__(self, work: Work, child: Child) -> None:
        self._work = work
        self._child = child

    def decode(self) -> dict[str, float]:
        """If a token took as long as reading the weights takes at the best bandwidth."""
        return {"decode": self._child.ask("bandwidth")["bytes_per_second"] / self._work.bytes_per_token}

    def prefill(self) -> dict[str, float]:
        """If the layers' products ran as fast as torch's product of float32 matrices."""
        return {"prefill": self._child.ask("products")["flops_per_second"] / self._work.flops_per_token}


def main() -> None:
    """The child: measure with so many threads what is asked for, the best of a few tries."""
    import torch

    torch.set_num_threads(int(sys.argv[1]))
    numbers = torch.ones(_BYTES // 4)
    left, right = torch.ones(PROMPT_TOKENS, _SIZE), torch.ones(_SIZE, _SIZE)

    def bandwidth() -> dict[str, Any]:
        return {"bytes_per_second": _BYTES / _fastest(numbers.sum)}

    def products() -> dict[str, Any]:
        return {"flops_per_second": 2 * PROMPT_TOKENS * _SIZE**2 / _fastest(lambda: left @ right)}

    answer(lambda: ({}, {"bandwidth": bandwidth, "products": products}))


def _fastest(run: Callable[[], object]) -> float:
    """Seconds of the fastest of a few tries."""
    times = []
    for _ in range(_TRIES):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


if __name__ == "__main__":
    main()
