"""Every operation in plain torch: the oracle for faster kernels, and the last resort without them."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from engine.batch import Batch
from engine.gguf import GGMLType, dequantize
from engine.kernels.interface import Kernels, Layers, nothing
from engine.kernels.operands import Norm, SelfAttention
from engine.kernels.weight import Weight
from engine.kv_cache import KVCache

_SLAB_ELEMENTS = 16 * 2**20
"""Elements dequantised at a time where no dense copy is kept: 64 MiB of float32."""


class DenseWeight(Weight):
    """A dequantised copy, float32 [m, n]."""

    def __init__(self, values: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__((values.shape[0], values.shape[1]), bias)
        self.values = values
        self._damaged = not values.isfinite().all()


class PackedWeight(Weight):
    """The bytes of the file, dequantised row by row at each use: slow, for want of memory."""

    def __init__(
        self,
        data: np.ndarray,
        ggml_type: GGMLType,
        shape: tuple[int, int],
        bias: torch.Tensor | None,
        device: torch.device,
    ) -> None:
        super().__init__(shape, bias)
        self._rows = data.reshape(shape[0], -1)
        self._type = ggml_type
        self._device = device

    def slabs(self) -> Iterator[tuple[slice, torch.Tensor]]:
        """All rows, some at a time: which, and their values, float32 [rows, n]."""
        step = max(1, _SLAB_ELEMENTS // self.shape[1])
        for start in range(0, self.shape[0], step):
            yield slice(start, start + step), self._dequantized(self._rows[start : start + step])

    def pick(self, ids: torch.Tensor) -> torch.Tensor:
        """The rows named by ids [T], float32 [T, n]."""
        return self._dequantized(self._rows[ids.cpu().numpy()])

    def _dequantized(self, rows: np.ndarray) -> torch.Tensor:
        values = dequantize(rows, self._type, (rows.shape[0], self.shape[1]))
        self._damaged = self._damaged or not np.isfinite(values).all()
        return torch.from_numpy(values).to(self._device)


class _PackedProduct(torch.autograd.Function):
    """x [T, n] times the transpose of a packed weight (m, n): [T, m].

    The way back dequantises once more: what the graph would keep otherwise is the whole model in float32.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: PackedWeight) -> torch.Tensor:
        ctx.weight = weight
        y = x.new_empty(x.shape[0], weight.shape[0])
        for rows, values in weight.slabs():
            y[:, rows] = x @ values.T
        return y

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        total = gradient.new_zeros(gradient.shape[0], ctx.weight.shape[1])
        for rows, values in ctx.weight.slabs():
            total += gradient[:, rows] @ values
        return total, None


class ReferenceKernels(Kernels):
    """Plain torch on any device, in float32.

    Matrices are dequantised once and kept as long as `dense_bytes` allow, the others at each use.
    """

    name = "reference"
    cache_dtype = torch.float32

    def __init__(self, device: torch.device, *, dense_bytes: int) -> None:
        self.device = device
        self._dense_bytes_left = dense_bytes
        self._packed = False
        self._meanwhile: list[Callable[[], None]] = []
        """What is done after each call: matrices that stay packed are read from their file each time."""

    @property
    def threads(self) -> int:
        return torch.get_num_threads()

    def pack(
        self,
        data: np.ndarray,
        ggml_type: GGMLType,
        shape: tuple[int, int],
        bias: torch.Tensor | None = None,
    ) -> Weight:
        size = shape[0] * shape[1] * 4
        if size > self._dense_bytes_left:
            self._packed = True
            return PackedWeight(data, ggml_type, shape, bias, self.device)
        self._dense_bytes_left -= size
        return DenseWeight(torch.from_numpy(dequantize(data, ggml_type, shape)).to(self.device), bias)

    def when_settled(self, then: Callable[[], None], meanwhile: Callable[[], None] = nothing) -> None:
        if self._packed:
            self._meanwhile.append(meanwhile)
        else:
            then()

    def linear(self, x: torch.Tensor, weight: Weight, norm: Norm | None = None) -> torch.Tensor:
        y = self._linear(x, weight, norm)
        self._look_after_files()
        return y

    def _look_after_files(self) -> None:
        for meanwhile in self._meanwhile:
            meanwhile()

    def _linear(self, x: torch.Tensor, weight: Weight, norm: Norm | None = None) -> torch.Tensor:
        if norm is not None:
            x = self.rms_norm(x, norm)
        if isinstance(weight, DenseWeight):
            y = F.linear(x, weight.values, weight.bias)
        else:
            assert isinstance(weight, PackedWeight)
            y = _PackedProduct.apply(x, weight)  # type: ignore[no-untyped-call]
            if weight.bias is not None:
                y = y + weight.bias
        theta = weight.correction
        return y if theta is None else y.addmm_(F.linear(x, theta.v) * theta.half_gamma, theta.u)

    def embed(self, ids: torch.Tensor, weight: Weight) -> torch.Tensor:
        if isinstance(weight, DenseWeight):
            return F.embedding(ids, weight.values)
        assert isinstance(weight, PackedWeight)
        return weight.pick(ids)

    def rms_norm(self, x: torch.Tensor, norm: Norm) -> torch.Tensor:
        """x [T, n] over the root of its mean square, times the norm's weight."""
        return F.rms_norm(x, (x.shape[-1],), norm.weight, norm.epsilon)

    def forward(
        self,
        x: torch.Tensor,
        layers: Layers,
        batch: Batch,
        cache: KVCache | None,
    ) -> torch.Tensor:
        for layer in layers:
            if isinstance(layer, SelfAttention):
                x = x + self._self_attention(self.rms_norm(x, layer.norm), layer, batch, cache)
            else:
                h = self.rms_norm(x, layer.norm)
                gated = F.silu(self.linear(h, layer.gate)) * self.linear(h, layer.up)
                x = x + self.linear(gated, layer.down)
        return x

    def _self_attention(
        self, h: torch.Tensor, layer: SelfAttention, batch: Batch, cache: KVCache | None
    ) -> torch.Tensor:
        rows = len(h)
        cos, sin = layer.rotation.cos[batch.positions], layer.rotation.sin[batch.positions]
        q = self.rope(self.linear(h, layer.q).view(rows, -1, layer.key_dim), cos, sin)
        k = self.rope(self.linear(h, layer.k).view(rows, -1, layer.key_dim), cos, sin)
        v = self.linear(h, layer.v).view(rows, -1, layer.value_dim)
        keys, values = k, v
        if cache is not None:
            keys, values = cache.keys[layer.cache_layer], cache.values[layer.cache_layer]
            self.store_kv(keys, values, k, v, batch.slots)
        mixed = self.attention(q, keys, values, batch, layer.key_dim**-0.5)
        return self.linear(mixed.flatten(1), layer.out)

    def rope(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        """Rotate neighbouring pairs of x [T, heads, d] by the angles of cos, sin [T, r/2], r <= d."""
        rotated = 2 * cos.shape[-1]
        even, odd = x[..., 0:rotated:2], x[..., 1:rotated:2]
        cos, sin = cos[:, None, :], sin[:, None, :]
        turned = torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2)
        return turned if rotated == x.shape[-1] else torch.cat((turned, x[..., rotated:]), -1)

    def store_kv(
        self,
        keys: torch.Tensor,
        values: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        slots: torch.Tensor,
    ) -> None:
        """Write k, v [T, kv_heads, d] to the slots [T] of one layer's keys, values [slots, kv_heads, d]."""
        keys.index_copy_(0, slots, k.to(keys.dtype))
        values.index_copy_(0, slots, v.to(values.dtype))

    def attention(
        self, q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, batch: Batch, scale: float
    ) -> torch.Tensor:
        """Causal attention of q [T, heads, d] over each row's own context in one layer's cache.

        Returns [T, heads, d of the values].
        """
        heads, kv_heads = q.shape[1], keys.shape[1]
        out = q.new_empty(q.shape[0], heads, values.shape[-1])
        for span in batch.spans:
            rows, context = span.stop - span.start, len(span.context_slots)
            # [kv_heads, group * rows, d] against [kv_heads, d, context]: each KV head is read once.
            queries = q[span.start : span.stop].transpose(0, 1).reshape(kv_heads, -1, q.shape[-1])
            k = keys[span.context_slots].to(q.dtype).permute(1, 2, 0)
            v = values[span.context_slots].to(q.dtype).transpose(0, 1)
            scores = (queries * scale) @ k
            if rows > 1:
                ahead = torch.ones(rows, context, dtype=torch.bool, device=q.device)
                ahead = ahead.triu_(context - rows + 1)
                scores.view(heads, rows, context).masked_fill_(ahead, -torch.inf)
            mixed = torch.softmax(scores, -1) @ v
            out[span.start : span.stop] = mixed.view(heads, rows, -1).transpose(0, 1)
        return out
