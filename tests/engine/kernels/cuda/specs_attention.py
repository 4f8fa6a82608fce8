"""Attention, the cache and what lies around them, for each format and head size."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from engine.kernels.cuda.attention import (
    Scoring,
    attention_constants,
    decode_kernel,
    decode_tile,
    merge_constants,
    merge_kernel,
)
from engine.kernels.cuda.hadamard import rotate_constants, rotate_heads_kernel
from engine.kernels.cuda.prefill import prefill_kernel, prefill_tile
from engine.kernels.cuda.rope import rope_constants, rope_store_kernel
from engine.kernels.cuda.sampling import MOST_CANDIDATES, draw_kernel, draw_launch, rank_kernel
from engine.kv_cache import CacheFormat, CacheLayer, KVCache
from tests.engine.kernels.cuda.aot import ARCHITECTURES, Spec

HEAD_DIMS = (64, 80, 96, 128, 256)
HEADS, KV_HEADS = 32, 8
PLAIN = Scoring(1.0)
BOUNDED = Scoring(1.0, window=4096, softcap=50.0)

ROWS = {CacheFormat.F16: "*fp16", CacheFormat.Q8: "*i8", CacheFormat.Q4: "*u8"}


def layer_of(format: CacheFormat, dim: int) -> CacheLayer:
    return KVCache.allocate(
        layers=1,
        slots=1,
        kv_heads=KV_HEADS,
        key_dim=dim,
        value_dim=dim,
        dtype=torch.float16,
        device=torch.device("cpu"),
        format=format,
    ).layer(0)


def cache_types(format: CacheFormat) -> dict[str, Any]:
    scales = "*fp16" if format.quantised else None
    return {"keys": ROWS[format], "key_scales": scales, "values": ROWS[format], "value_scales": scales}


def archs_of(format: CacheFormat, dim: int) -> tuple[int, ...]:
    """All for the usual head of floats; sm_80 stands for sm_89 where only sizes and formats differ."""
    if dim != 128:
        return (90,)
    return (80, 90) if format.quantised else ARCHITECTURES


def spec(
    name: str,
    function: Any,
    signature: Mapping[str, Any],
    constants: Mapping[str, Any],
    archs: tuple[int, ...] = ARCHITECTURES,
) -> Spec:
    """A launch's keywords are constexprs of the kernel, and how it is launched."""
    launch = {key: constants[key] for key in ("num_warps", "num_stages") if key in constants}
    return Spec(
        name,
        function,
        signature,
        {key: value for key, value in constants.items() if key not in launch},
        archs=archs,
        **launch,
    )


def attention_specs(
    format: CacheFormat, dim: int, archs: tuple[int, ...], scoring: Scoring
) -> Iterator[Spec]:
    layer = layer_of(format, dim)
    group = HEADS // KV_HEADS
    label = f"{format.name} x {dim}{'' if scoring is PLAIN else ', bounded'}"
    shared = {
        "queries": "*fp16",
        **cache_types(format),
        "tables": "*i32",
        "lengths": "*i32",
        "starts": "*i32",
        "max_pages": "i32",
        "scale": "fp32",
        "window": "i32",
        "softcap": "fp32",
    }
    constants = attention_constants(layer, HEADS, 16, scoring)
    for rows in (1, 8) if scoring is PLAIN and dim >= 128 else (1,):
        yield spec(
            f"decode {label}, {rows} rows",
            decode_kernel,
            {**shared, "sums": "*fp32", "logs": "*fp32"},
            {**constants, **decode_tile(rows * group, layer), "splits": 32},
            archs if rows == 1 else (90,),
        )
    yield spec(
        f"prefill {label}",
        prefill_kernel,
        {**shared, "sequences": "i32", "out": "*fp32"},
        {**constants, **prefill_tile(group, layer)},
        # Nibbles in a tile of many queries come nearest to the end of the registers, with sm_80's matrices.
        (80, 90) if format is CacheFormat.Q4 and scoring is PLAIN else archs,
    )


def cache_specs(format: CacheFormat, dim: int, archs: tuple[int, ...]) -> Iterator[Spec]:
    layer = layer_of(format, dim)
    floats = dict.fromkeys(("q", "k", "v", "cos", "sin"), "*fp32")
    yield spec(
        f"rope and store {format.name} x {dim}",
        rope_store_kernel,
        {**floats, **cache_types(format), "positions": "*i64", "slots": "*i64", "queries": "*fp16"},
        {**rope_constants(layer, HEADS, dim // 2), "num_warps": 1},
        archs,
    )
    # Behind attention, all quantised formats are rotated alike.
    if format is not CacheFormat.Q4:
        yield spec(
            f"merge {'rotated' if format.quantised else 'plain'} x {dim}",
            merge_kernel,
            {"sums": "*fp32", "logs": "*fp32", "starts": "*i32", "sequences": "i32", "out": "*fp32"},
            merge_constants(layer, HEADS, 32),
            archs,
        )


def all_specs() -> Iterator[Spec]:
    for dim in HEAD_DIMS:
        for format in CacheFormat:
            archs = archs_of(format, dim)
            yield from attention_specs(format, dim, archs, PLAIN)
            yield from cache_specs(format, dim, archs)
        yield spec(
            f"rotate heads x {dim}",
            rotate_heads_kernel,
            {"x": "*fp32", "rows": "i32"},
            rotate_constants(dim),
            ARCHITECTURES if dim == 128 else (90,),
        )
    for format in CacheFormat:
        yield from attention_specs(format, 128, (90,), BOUNDED)
    keys = {"keys": "*i64"}
    yield spec("rank", rank_kernel, {**keys, "logits": "*fp32", "vocab": "i32"}, {"block": 1024})
    for most in (512, MOST_CANDIDATES):
        yield spec(
            f"draw of {most}",
            draw_kernel,
            {**keys, "table": "*fp64", "tokens": "*i64", "most": "i32"},
            draw_launch(most),
            ARCHITECTURES if most == 512 else (90,),
        )


SPECS = list(all_specs())
