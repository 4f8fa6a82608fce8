"""The products of one token's way through a model, as the engine launches them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from benchmarks.gpu.model_shapes import q4_k_m
from benchmarks.gpu.random_model import random_weight
from engine.architectures import LlamaConfig
from engine.gguf import GGMLType
from engine.kernels.cuda.activations import Activations
from engine.kernels.cuda.epilogue import Epilogue
from engine.kernels.cuda.gemv import gemv
from engine.kernels.cuda.weight import CudaWeight


@dataclass(frozen=True, slots=True)
class Launch:
    """Matrices that are multiplied with one input in one launch."""

    name: str
    kinds: tuple[GGMLType, ...]
    rows: tuple[int, ...]
    """Of each matrix."""
    width: int
    """Their columns."""
    epilogue: Epilogue
    times: int
    """How often a token's way has it."""

    def make(self, generator: torch.Generator) -> list[CudaWeight]:
        """Random matrices for it."""
        pairs = zip(self.kinds, self.rows, strict=True)
        return [random_weight(kind, (rows, self.width), generator) for kind, rows in pairs]

    def outs(self, count: int, device: torch.device) -> list[torch.Tensor]:
        """Room for the results of `count` rows of activations, float32 [count, m] each."""
        rows = self.rows[:1] if self.epilogue is Epilogue.GATE else self.rows
        return [torch.zeros(count, each, device=device) for each in rows]

    def run(self, x: Activations, weights: Sequence[CudaWeight], outs: Sequence[torch.Tensor]) -> None:
        """The launch for a few rows."""
        gemv(x, weights, self.epilogue, outs)


def launches(config: LlamaConfig) -> list[Launch]:
    """All kinds of launches of a llama in Q4_K_M, with how often each comes."""
    found: dict[tuple[object, ...], Launch] = {}

    def add(names: Sequence[str], rows: Sequence[int], width: int, epilogue: Epilogue) -> None:
        kinds = tuple(q4_k_m(name, config.layers) for name in names)
        parts = [name.rpartition(".")[2].rpartition("_")[2] for name in names]
        title = f"{'+'.join(parts)} {'+'.join(dict.fromkeys(kind.name for kind in kinds))}"
        key = (title, *rows)
        times = 1 + (found[key].times if key in found else 0)
        found[key] = Launch(title, kinds, tuple(rows), width, epilogue, times)

    queries, keys = config.heads * config.key_dim, config.kv_heads * config.key_dim
    values, mixed = config.kv_heads * config.value_dim, config.heads * config.value_dim
    for layer in range(config.layers):
        at = f"blk.{layer}"
        inputs = [f"{at}.attn_{part}" for part in "qkv"]
        add(inputs, (queries, keys, values), config.width, Epilogue.STORE)
        add([f"{at}.attn_output"], [config.width], mixed, Epilogue.ADD)
        gates = [f"{at}.ffn_gate", f"{at}.ffn_up"]
        add(gates, [config.feed_forward] * 2, config.width, Epilogue.GATE)
        add([f"{at}.ffn_down"], [config.width], config.feed_forward, Epilogue.ADD)
    add(["output"], [config.vocab_size], config.width, Epilogue.STORE)
    return list(found.values())
