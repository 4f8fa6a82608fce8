"""The kernels of the compiled library behind the interface of all kernels."""

import ctypes
import weakref
from collections.abc import Callable

import numpy as np
import torch

from engine.batch import Batch
from engine.gguf import NATIVE_TYPES, GGMLType, dequantize
from engine.kernels.interface import Kernels, Layers
from engine.kernels.operands import FeedForward, Norm, SelfAttention
from engine.kernels.weight import Correction, Weight
from engine.kv_cache import KVCache
from engine.native import open_library
from engine.native.library import CBatch, CCache, CFeedForward, CLayer, CSelfAttention, CSpan

_CPU = torch.device("cpu")


class _Handle:
    """The library with one engine of it: its threads, and the memory of its matrices."""

    def __init__(self, name: str, threads: int) -> None:
        library = open_library()
        assert library is not None, "`native_kernels` says whether there is a library"
        self.library = library
        self.engine = library.nkat_open(name.encode(), threads)
        if not self.engine:
            raise MemoryError("no memory for the kernels")
        self.packing: list[np.ndarray] = []
        """What the library may still read; the end of the engine waits for it."""
        self.waiting: list[Callable[[], None]] = []
        """What is to be done when it has."""
        weakref.finalize(self, _close, library, self.engine, self.packing)


def _close(library: ctypes.CDLL, engine: int, packing: list[np.ndarray]) -> None:
    library.nkat_close(engine)
    packing.clear()


def _forget(handle: _Handle, weight: int) -> None:
    handle.library.nkat_forget(handle.engine, weight)


class NativeWeight(Weight):
    """A matrix in panels of eight rows, in the library's memory."""

    def __init__(
        self,
        handle: _Handle,
        data: np.ndarray,
        ggml_type: GGMLType,
        shape: tuple[int, int],
        bias: torch.Tensor | None,
    ) -> None:
        super().__init__(shape, bias)
        self._handle = handle
        self._packed: Correction | None = None
        """What the library has, in use or not."""
        self.pointer: int | None = handle.library.nkat_pack(
            handle.engine, int(ggml_type), *shape, data.ctypes.data, None if bias is None else bias.data_ptr()
        )
        if not self.pointer:
            raise MemoryError(f"no memory for a matrix of {shape[0]} x {shape[1]}")
        # The finalizer holds the handle: the engine outlives all of its matrices, cycles or not.
        weakref.finalize(self, _forget, handle, self.pointer)

    def correct(self, correction: Correction | None) -> None:
        super().correct(correction)
        handle = self._handle
        if correction is not None and correction is not self._packed:
            u, v = correction.u.detach().float().contiguous(), correction.v.detach().float().contiguous()
            half_gamma = correction.half_gamma.data_ptr()
            _check(
                handle.library.nkat_set_theta(
                    handle.engine, self.pointer, len(u), u.data_ptr(), v.data_ptr(), half_gamma
                )
            )
            self._packed = correction
        handle.library.nkat_use_theta(handle.engine, self.pointer, correction is not None)


class NativeKernels(Kernels):
    """The compiled kernels of one instruction set, on threads of their own.

    Matrices stay packed, integers as wide as in the file; activations are rounded to 8 bits in front of
    them, float types excepted. A row's results do not depend on the company it is computed in.
    """

    device = _CPU
    cache_dtype = torch.float16

    def __init__(self, name: str, threads: int) -> None:
        """`name`: one of `native_kernels()`. `threads`: in all, the caller's included."""
        self.name = name
        self._threads = threads
        self._handle = _Handle(name, threads)
        self._call = self._handle.library
        self._layers: tuple[Layers, ctypes.Array[CLayer]] | None = None

    @property
    def threads(self) -> int:
        return self._threads

    def pack(
        self,
        data: np.ndarray,
        ggml_type: GGMLType,
        shape: tuple[int, int],
        bias: torch.Tensor | None = None,
    ) -> NativeWeight:
        if ggml_type not in NATIVE_TYPES:
            data, ggml_type = dequantize(data, ggml_type, shape), GGMLType.F32
        data = np.ascontiguousarray(data)
        self._handle.packing.append(data)
        return NativeWeight(self._handle, data, ggml_type, shape, bias)

    def settle(self) -> None:
        self._call.nkat_settle(self._handle.engine)
        self._look_after_packing()

    def when_settled(self, then: Callable[[], None]) -> None:
        self._handle.waiting.append(then)
        self._look_after_packing()

    def _look_after_packing(self) -> None:
        """Let go of what is packed, if all is."""
        handle = self._handle
        if self._call.nkat_settled(handle.engine):
            handle.packing.clear()
            waiting, handle.waiting = handle.waiting, []
            for then in waiting:
                then()

    def linear(self, x: torch.Tensor, weight: Weight, norm: Norm | None = None) -> torch.Tensor:
        x = x.contiguous()
        y = torch.empty(len(x), weight.shape[0])
        scales, epsilon = (None, 0.0) if norm is None else (norm.weight.data_ptr(), norm.epsilon)
        _check(
            self._call.nkat_linear(
                self._handle.engine, _pointer(weight), scales, epsilon, x.data_ptr(), len(x), y.data_ptr()
            )
        )
        return y

    def embed(self, ids: torch.Tensor, weight: Weight) -> torch.Tensor:
        ids = ids.contiguous()
        rows = torch.empty(len(ids), weight.shape[1])
        _check(
            self._call.nkat_embed(
                self._handle.engine, _pointer(weight), ids.data_ptr(), len(ids), rows.data_ptr()
            )
        )
        return rows

    def forward(
        self,
        x: torch.Tensor,
        layers: Layers,
        batch: Batch,
        cache: KVCache | None,
    ) -> torch.Tensor:
        x = x.contiguous()
        if cache is None:
            cache = _own_context(layers, len(x))
        c_batch, c_cache = _c_batch(batch), _c_cache(cache)
        _check(
            self._call.nkat_forward(
                self._handle.engine, self._c_layers(layers), len(layers), x.data_ptr(), c_batch, c_cache
            )
        )
        if self._handle.packing:
            self._look_after_packing()
        return x

    def _c_layers(self, layers: Layers) -> "ctypes.Array[CLayer]":
        """The layers for the library; those of the last call are at hand."""
        last = self._layers
        if last is None or last[0] is not layers:
            last = self._layers = layers, (CLayer * len(layers))(*map(_c_layer, layers))
        return last[1]


def _own_context(layers: Layers, rows: int) -> KVCache:
    """Room for one run without a cache. All layers share it, for each needs its own keys and values alone."""
    attentions = [layer for layer in layers if isinstance(layer, SelfAttention)]
    keys = max((layer.k.shape[0] for layer in attentions), default=0)
    values = max((layer.v.shape[0] for layer in attentions), default=0)
    shared = (torch.empty(rows, width, dtype=torch.float16).expand(2, -1, -1) for width in (keys, values))
    return KVCache(next(shared), next(shared))


def _c_cache(cache: KVCache) -> CCache:
    return CCache(
        cache.keys.data_ptr(), cache.values.data_ptr(), cache.keys.stride(0), cache.values.stride(0)
    )


def _c_batch(batch: Batch) -> CBatch:
    """The batch for the library, which must not outlive it."""
    spans = (CSpan * len(batch.spans))(
        *(
            CSpan(span.start, span.stop, len(span.context_slots), span.context_slots.data_ptr())
            for span in batch.spans
        )
    )
    return CBatch(len(batch.slots), batch.positions.data_ptr(), batch.slots.data_ptr(), len(spans), spans)


def _c_layer(layer: SelfAttention | FeedForward) -> CLayer:
    norm, epsilon = layer.norm.weight.data_ptr(), layer.norm.epsilon
    if isinstance(layer, FeedForward):
        weights = (_pointer(weight) for weight in (layer.gate, layer.up, layer.down))
        return CLayer(None, ctypes.pointer(CFeedForward(norm, epsilon, *weights)))
    weights = (_pointer(weight) for weight in (layer.q, layer.k, layer.v, layer.out))
    attention = CSelfAttention(
        norm,
        epsilon,
        layer.key_dim**-0.5,
        *weights,
        layer.cache_layer,
        layer.key_dim,
        layer.value_dim,
        2 * layer.rotation.cos.shape[1],
        layer.rotation.cos.data_ptr(),
        layer.rotation.sin.data_ptr(),
    )
    return CLayer(ctypes.pointer(attention), None)


def _pointer(weight: Weight) -> int | None:
    assert isinstance(weight, NativeWeight)
    return weight.pointer


def _check(result: int) -> None:
    if result != 0:
        raise MemoryError("no memory for a step of the model")
