"""The kernels of the compiled library behind the interface of all kernels."""

import ctypes
import weakref
from collections.abc import Callable

import numpy as np
import torch

from engine.batch import Batch
from engine.gguf import NATIVE_TYPES, GGMLType, dequantize
from engine.kernels.interface import Kernels, Layers, nothing
from engine.kernels.operands import FeedForward, Norm, SelfAttention
from engine.kernels.weight import Correction, Weight
from engine.kv_cache import KVCache
from engine.native import open_library
from engine.native.library import CBatch, CCache, CFeedForward, CLayer, CSelfAttention, CSpan, check

_CPU = torch.device("cpu")
_STEP = "a step of the model"


class _Handle:
    """The library with one engine of it: its threads, and the memory of its matrices."""

    def __init__(self, name: str, threads: int) -> None:
        library = open_library()
        assert library is not None, "`native_kernels` says whether there is a library"
        self.library = library
        self.engine = library.nkat_open(name.encode(), threads)
        if not self.engine:
            raise MemoryError(f"no memory for kernels on {threads} threads")
        self.packing: list[np.ndarray] = []
        """What the library may still read; the end of the engine waits for it."""
        self.waiting: list[tuple[Callable[[], None], Callable[[], None]]] = []
        """What is to be done when it has, and until then."""
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
        pointer = ctypes.c_void_p()
        result = handle.library.nkat_pack(
            handle.engine,
            int(ggml_type),
            *shape,
            data.ctypes.data,
            data.nbytes,
            None if bias is None else _address(bias, torch.float32),
            0 if bias is None else bias.numel(),
            ctypes.byref(pointer),
        )
        check(handle.library, result, f"a matrix of {shape[0]} x {shape[1]}")
        assert pointer.value is not None, "the library has packed it"
        self.pointer: int = pointer.value
        # The finalizer holds the handle: the engine outlives all of its matrices, cycles or not.
        weakref.finalize(self, _forget, handle, self.pointer)

    @property
    def damaged(self) -> bool:
        return self._damaged or bool(self._handle.library.nkat_damaged(self.pointer))

    def correct(self, correction: Correction | None) -> None:
        super().correct(correction)
        handle = self._handle
        if correction is not None and correction is not self._packed:
            u, v = correction.u.detach().float().contiguous(), correction.v.detach().float().contiguous()
            result = handle.library.nkat_set_theta(
                handle.engine,
                self.pointer,
                len(u),
                _address(u, torch.float32),
                u.numel(),
                _address(v, torch.float32),
                v.numel(),
                _address(correction.half_gamma, torch.float32),
            )
            check(handle.library, result, f"theta of a matrix of {self.shape[0]} x {self.shape[1]}")
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
        self._cache: tuple[KVCache, CCache] | None = None

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

    def when_settled(self, then: Callable[[], None], meanwhile: Callable[[], None] = nothing) -> None:
        self._handle.waiting.append((then, meanwhile))
        self._look_after_packing()

    def _look_after_packing(self) -> None:
        """Let go of what is packed, if all is."""
        handle = self._handle
        if self._call.nkat_settled(handle.engine):
            handle.packing.clear()
            waiting, handle.waiting = handle.waiting, []
            for then, _ in waiting:
                then()
        else:
            for _, meanwhile in handle.waiting:
                meanwhile()

    def linear(self, x: torch.Tensor, weight: Weight, norm: Norm | None = None) -> torch.Tensor:
        x = x.contiguous()
        y = torch.empty(len(x), weight.shape[0])
        scales = None if norm is None else _address(norm.weight, torch.float32)
        result = self._call.nkat_linear(
            self._handle.engine,
            _pointer(weight),
            scales,
            0 if norm is None else norm.weight.numel(),
            0.0 if norm is None else norm.epsilon,
            _address(x, torch.float32),
            x.numel(),
            len(x),
            y.data_ptr(),
            y.numel(),
        )
        check(self._call, result, _STEP)
        if self._handle.packing:
            self._look_after_packing()
        return y

    def embed(self, ids: torch.Tensor, weight: Weight) -> torch.Tensor:
        ids = ids.contiguous()
        rows = torch.empty(len(ids), weight.shape[1])
        result = self._call.nkat_embed(
            self._handle.engine,
            _pointer(weight),
            _address(ids, torch.int64),
            ids.numel(),
            rows.data_ptr(),
            rows.numel(),
        )
        check(self._call, result, _STEP)
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
            c_cache = _c_cache(cache)
        else:
            c_cache = self._c_cache(cache)
        result = self._call.nkat_forward(
            self._handle.engine,
            self._c_layers(layers),
            len(layers),
            _address(x, torch.float32),
            x.numel(),
            _c_batch(batch),
            c_cache,
        )
        check(self._call, result, _STEP)
        if self._handle.packing:
            self._look_after_packing()
        return x

    def _c_layers(self, layers: Layers) -> "ctypes.Array[CLayer]":
        """The layers for the library; those of the last call are at hand."""
        last = self._layers
        if last is None or last[0] is not layers:
            last = self._layers = layers, (CLayer * len(layers))(*map(_c_layer, layers))
        return last[1]

    def _c_cache(self, cache: KVCache) -> CCache:
        """The cache for the library; that of the last call is at hand."""
        last = self._cache
        if last is None or last[0] is not cache:
            last = self._cache = cache, _c_cache(cache)
        return last[1]


def _own_context(layers: Layers, rows: int) -> KVCache:
    """Room for one run without a cache. All layers share it, for each needs its own keys and values alone."""
    attentions = [layer for layer in layers if isinstance(layer, SelfAttention)]
    keys = max((layer.k.shape[0] for layer in attentions), default=0)
    values = max((layer.v.shape[0] for layer in attentions), default=0)
    count = 1 + max((layer.cache_layer for layer in attentions), default=0)
    shared = (torch.empty(rows, width, dtype=torch.float16).expand(count, -1, -1) for width in (keys, values))
    return KVCache(next(shared), next(shared))


def _c_cache(cache: KVCache) -> CCache:
    """The cache for the library, which must not outlive it."""
    widths = []
    for part in (cache.keys, cache.values):
        _check_kind(part[0], torch.float16)
        widths.append(part[0, 0].numel() if part.numel() else 0)
    if cache.keys.shape[:2] != cache.values.shape[:2]:
        raise ValueError("the kernels refuse a cache with more keys than values, or fewer")
    return CCache(
        cache.keys.data_ptr(),
        cache.values.data_ptr(),
        cache.keys.stride(0),
        cache.values.stride(0),
        *cache.keys.shape[:2],
        *widths,
    )


def _c_batch(batch: Batch) -> CBatch:
    """The batch for the library, which must not outlive it."""
    spans = (CSpan * len(batch.spans))(
        *(
            CSpan(
                span.start,
                span.stop,
                span.context_slots.numel(),
                _address(span.context_slots, torch.int64),
            )
            for span in batch.spans
        )
    )
    return CBatch(
        batch.slots.numel(),
        batch.positions.numel(),
        _address(batch.positions, torch.int64),
        _address(batch.slots, torch.int64),
        len(spans),
        spans,
    )


def _c_layer(layer: SelfAttention | FeedForward) -> CLayer:
    norm = (_address(layer.norm.weight, torch.float32), layer.norm.weight.numel(), layer.norm.epsilon)
    if isinstance(layer, FeedForward):
        weights = (_pointer(weight) for weight in (layer.gate, layer.up, layer.down))
        return CLayer(None, ctypes.pointer(CFeedForward(*norm, *weights)))
    weights = (_pointer(weight) for weight in (layer.q, layer.k, layer.v, layer.out))
    cos, sin = layer.rotation.cos, layer.rotation.sin
    if cos.shape != sin.shape:
        raise ValueError("the kernels refuse a rotation with more cosines than sines, or fewer")
    attention = CSelfAttention(
        *norm,
        layer.key_dim**-0.5,
        *weights,
        layer.cache_layer,
        layer.key_dim,
        layer.value_dim,
        2 * cos.shape[1],
        _address(cos, torch.float32),
        _address(sin, torch.float32),
        cos.shape[0],
    )
    return CLayer(ctypes.pointer(attention), None)


def _pointer(weight: Weight) -> int:
    assert isinstance(weight, NativeWeight)
    return weight.pointer


def _address(tensor: torch.Tensor, dtype: torch.dtype) -> int:
    """Where the elements of a tensor lie, one behind the other."""
    _check_kind(tensor, dtype)
    return tensor.data_ptr()


def _check_kind(tensor: torch.Tensor, dtype: torch.dtype) -> None:
    if tensor.dtype is not dtype or not tensor.is_contiguous() or not tensor.is_cpu:
        raise ValueError(f"the kernels refuse a tensor that is not contiguous {dtype} on the processor")
