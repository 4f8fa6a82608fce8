"""Every operation of a model on a CUDA device, by Triton kernels."""

import numpy as np
import torch

from engine.batch import Batch, Pages
from engine.gguf import NATIVE_TYPES, GGMLType, dequantize
from engine.kernels.cuda.attention import Scoring, decode_attention
from engine.kernels.cuda.embedding import embed
from engine.kernels.cuda.gemm import MOST_ROWS
from engine.kernels.cuda.gemv import MOST_COLUMNS
from engine.kernels.cuda.linear import project, project_gated, project_onto
from engine.kernels.cuda.planes import pack_planes
from engine.kernels.cuda.prefill import prefill_attention
from engine.kernels.cuda.rope import rope_store
from engine.kernels.cuda.sampling import sample
from engine.kernels.cuda.weight import CudaWeight
from engine.kernels.interface import Kernels, Layers
from engine.kernels.operands import Draws, FeedForward, Norm, SelfAttention
from engine.kernels.weight import Weight
from engine.kv_cache import CacheFormat, KVCache

_MOST_DECODE_ROWS = 8
"""Rows of one sequence up to which its context is split: drafts, that is; beyond them a prompt is read."""


class CudaKernels(Kernels):
    """Matrices stay packed, regrouped into words of 32 weights.

    Activations are rounded to 8 bits for up to eight rows, to bfloat16 beyond. So a row's results
    depend on how many there are, within these roundings; the same batch always gives the same bits.
    """

    name = "triton"
    paged = True
    draws = True
    compiled_for = (1, MOST_COLUMNS + 1, 17, 33, 65, MOST_ROWS + 1)
    cache_dtype = torch.float16

    def __init__(self, device: torch.device, cache_format: CacheFormat = CacheFormat.F16) -> None:
        """`device`: CUDA; the processor only for Triton's interpreter."""
        self.device = device
        self.cache_format = cache_format
        self._processors = 1
        if device.type == "cuda":
            self._processors = torch.cuda.get_device_properties(device).multi_processor_count

    @property
    def threads(self) -> int:
        return 1

    def pack(
        self,
        data: np.ndarray,
        ggml_type: GGMLType,
        shape: tuple[int, int],
        bias: torch.Tensor | None = None,
    ) -> CudaWeight:
        if ggml_type not in NATIVE_TYPES:
            data, ggml_type = dequantize(data, ggml_type, shape).view(np.uint8), GGMLType.F32
        # The file's memory is read-only, which torch has no word for; a copy to a card is one anyway.
        blocks = torch.from_numpy(np.array(data).reshape(shape[0], -1)).to(self.device)
        return CudaWeight(pack_planes(blocks, ggml_type, shape), bias)

    def linear(self, x: torch.Tensor, weight: Weight, norm: Norm | None = None) -> torch.Tensor:
        return project(x.contiguous(), [_own(weight)], norm)[0]

    def embed(self, ids: torch.Tensor, weight: Weight) -> torch.Tensor:
        return embed(_own(weight).planes, ids)

    def draw(self, logits: torch.Tensor, draws: Draws) -> torch.Tensor:
        return sample(logits, draws)

    def forward(
        self,
        x: torch.Tensor,
        layers: Layers,
        batch: Batch,
        cache: KVCache | None,
    ) -> torch.Tensor:
        x = x.contiguous()
        pages = batch.pages
        if cache is None:
            cache = self._own_context(layers, len(x))
            pages = Pages.of_one(len(x), self.device)
        assert pages is not None, "these kernels are told of pages"
        for layer in layers:
            if isinstance(layer, SelfAttention):
                self._self_attention(x, layer, batch, pages, cache)
            else:
                _feed_forward(x, layer)
        return x

    def _self_attention(
        self, x: torch.Tensor, layer: SelfAttention, batch: Batch, pages: Pages, cache: KVCache
    ) -> None:
        """Add the attention's part to x."""
        own = cache.layer(layer.cache_layer)
        q, k, v = project(x, [_own(layer.q), _own(layer.k), _own(layer.v)], layer.norm)
        queries = rope_store(q, k, v, batch.positions, batch.slots, layer.rotation, own)
        scoring = Scoring(scale=layer.key_dim**-0.5)
        if pages.rows <= _MOST_DECODE_ROWS:
            mixed = decode_attention(queries, own, pages, scoring, self._processors)
        else:
            mixed = prefill_attention(queries, own, pages, scoring)
        project_onto(mixed, _own(layer.out), x)

    def _own_context(self, layers: Layers, rows: int) -> KVCache:
        """Room for one run without a cache. All layers share it: each needs its own keys and values alone."""
        attentions = [layer for layer in layers if isinstance(layer, SelfAttention)]
        one = KVCache.allocate(
            layers=1,
            slots=rows,
            kv_heads=max(layer.k.shape[0] // layer.key_dim for layer in attentions) if attentions else 0,
            key_dim=max((layer.key_dim for layer in attentions), default=0),
            value_dim=max((layer.value_dim for layer in attentions), default=0),
            dtype=self.cache_dtype,
            device=self.device,
        )
        layer_numbers = 1 + max((layer.cache_layer for layer in attentions), default=0)
        keys, values = (part.expand(layer_numbers, -1, -1, -1) for part in (one.keys, one.values))
        return KVCache(keys, values)


def _feed_forward(x: torch.Tensor, layer: FeedForward) -> None:
    """Add the network's part to x."""
    gated = project_gated(x, _own(layer.gate), _own(layer.up), layer.norm)
    project_onto(gated, _own(layer.down), x)


def _own(weight: Weight) -> CudaWeight:
    assert isinstance(weight, CudaWeight)
    return weight
