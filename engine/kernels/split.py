"""Kernels of a model whose layers are on several devices, or with several kernel sets."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate

import numpy as np
import torch

from engine.batch import Batch
from engine.gguf import GGMLType
from engine.kernels.interface import Kernels, Layers, nothing
from engine.kernels.operands import Draws, FeedForward, Norm, Rotation, SelfAttention
from engine.kernels.split_batch import batch_for
from engine.kernels.split_cache import SplitCache
from engine.kernels.weight import Correction, Weight
from engine.kv_cache import KVCache


@dataclass(frozen=True, slots=True, eq=False)
class Stage:
    """Blocks of a model that follow each other, and the kernels that compute them."""

    kernels: Kernels
    blocks: int
    """Only the last stage of a model may have none: it has the output matrix."""


class TiedWeight(Weight):
    """A matrix that is embedding and output, packed for the first stage and for the last."""

    def __init__(self, embedding: Weight, output: Weight) -> None:
        super().__init__(output.shape, output.bias)
        self.embedding = embedding
        self.output = output

    @property
    def damaged(self) -> bool:
        """As `Weight.damaged`, of both."""
        return self.embedding.damaged or self.output.damaged

    def correct(self, correction: Correction | None) -> None:
        """As `Weight.correct`, with factors on the device of the output: embeddings are no products."""
        super().correct(correction)
        self.output.correct(correction)


class SplitKernels(Kernels):
    """A way through several stages, each with its own kernels; activations move on between them.

    The first stage embeds, the last one makes the logits. Batches and all that belongs to no stage are on
    the processor, where the stages' kernels find their part of them.
    """

    device = torch.device("cpu")

    def __init__(self, stages: Sequence[Stage], page_size: int) -> None:
        """`stages`: two or more. `page_size`: slots of a block of the KV cache."""
        self.stages = tuple(stages)
        self.first, self.last = stages[0].kernels, stages[-1].kernels
        self.name = "+".join(dict.fromkeys(stage.kernels.name for stage in stages))
        self.cache_dtype, self.cache_format = self.last.cache_dtype, self.last.cache_format
        self.draws = self.last.draws
        self._page_size = page_size
        self._starts = [0, *accumulate(stage.blocks for stage in stages)][:-1]
        self._divided: tuple[Layers, tuple[Layers, ...]] | None = None
        self._rotations: dict[tuple[Rotation, torch.device], Rotation] = {}

    @property
    def place(self) -> str:
        return ",".join(f"{stage.kernels.device}={stage.blocks}" for stage in self.stages)

    @property
    def threads(self) -> int:
        return max(stage.kernels.threads for stage in self.stages)

    def of_block(self, number: int) -> Kernels:
        """The kernels of a block of the model."""
        return self.stages[self._place(number)].kernels

    def pack(
        self,
        data: np.ndarray,
        ggml_type: GGMLType,
        shape: tuple[int, int],
        bias: torch.Tensor | None = None,
    ) -> Weight:
        """Take over the embedding; other matrices are for their stage's kernels to pack."""
        return self.first.pack(data, ggml_type, shape, bias)

    def settle(self) -> None:
        for stage in self.stages:
            stage.kernels.settle()

    def when_settled(self, then: Callable[[], None], meanwhile: Callable[[], None] = nothing) -> None:
        for stage in self.stages:
            then = partial(stage.kernels.when_settled, then, meanwhile)
        then()

    def linear(self, x: torch.Tensor, weight: Weight, norm: Norm | None = None) -> torch.Tensor:
        """As `Kernels.linear`, for matrices of the last stage."""
        with _current(self.last.device):
            own = weight.output if isinstance(weight, TiedWeight) else weight
            return self.last.linear(x.to(self.last.device), own, norm)

    def embed(self, ids: torch.Tensor, weight: Weight) -> torch.Tensor:
        with _current(self.first.device):
            own = weight.embedding if isinstance(weight, TiedWeight) else weight
            return self.first.embed(ids.to(self.first.device), own)

    def draw(self, logits: torch.Tensor, draws: Draws) -> torch.Tensor:
        with _current(self.last.device):
            return self.last.draw(logits, draws)

    def forward(
        self,
        x: torch.Tensor,
        layers: Layers,
        batch: Batch,
        cache: KVCache | None,
    ) -> torch.Tensor:
        """As `Kernels.forward`; the result is where the last stage computes."""
        parts: Sequence[KVCache | None] = (None,) * len(self.stages)
        if cache is not None:
            assert isinstance(cache, SplitCache), "each stage has a cache of its own"
            parts = cache.parts
        for stage, own, part in zip(self.stages, self._divide(layers), parts, strict=True):
            if own:
                kernels = stage.kernels
                with _current(kernels.device):
                    local = batch_for(batch, kernels, self._page_size)
                    x = kernels.forward(x.to(kernels.device), own, local, part)
        return x.to(self.last.device)

    def _place(self, block: int) -> int:
        """Which stage a block belongs to."""
        return bisect_right(self._starts, block) - 1

    def _divide(self, layers: Layers) -> tuple[Layers, ...]:
        """The layers of each stage; those of the last call are at hand."""
        last = self._divided
        if last is None or last[0] is not layers:
            last = self._divided = layers, self._divided_anew(layers)
        return last[1]

    def _divided_anew(self, layers: Layers) -> tuple[Layers, ...]:
        """Layers numbered from their stage's first, with rotations where they compute.

        The two halves of a block come in turn; the first has its number.
        """
        own: list[list[SelfAttention | FeedForward]] = [[] for _ in self.stages]
        place = 0
        for layer in layers:
            if isinstance(layer, SelfAttention):
                place = self._place(layer.cache_layer)
                number = layer.cache_layer - self._starts[place]
                rotation = self._rotation(layer.rotation, self.stages[place].kernels.device)
                layer = replace(layer, cache_layer=number, rotation=rotation)
            own[place].append(layer)
        return tuple(tuple(part) for part in own)

    def _rotation(self, rotation: Rotation, device: torch.device) -> Rotation:
        """The tables on a device, one copy for all of its layers."""
        key = rotation, device
        if key not in self._rotations:
            self._rotations[key] = Rotation(rotation.cos.to(device), rotation.sin.to(device))
        return self._rotations[key]


def _current(device: torch.device) -> AbstractContextManager[object]:
    """While it lasts, Triton launches on this device: it takes the thread's current one."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
