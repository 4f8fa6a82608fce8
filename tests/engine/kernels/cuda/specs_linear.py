"""Variants of the products with packed matrices, for `aot`.

Every kernel is compiled for every architecture, in the variants that a 7B model in Q4_K_M runs; all types and
numbers of rows beside those for sm_90 alone.
"""

from collections.abc import Sequence

from engine.gguf import GGMLType
from engine.kernels.cuda.activations import activations_kernel
from engine.kernels.cuda.dequantize import dequantize_kernel
from engine.kernels.cuda.epilogue import Addends, Epilogue, Finished, finish_kernel
from engine.kernels.cuda.formats import FORMATS
from engine.kernels.cuda.gemm import Operand, gemm_kernel, tile_for
from engine.kernels.cuda.gemv import Columns, Segment, Tiling, gemv_kernel, tiling
from engine.kernels.cuda.groups import PlanePointers
from tests.engine.kernels.cuda.aot import ARCHITECTURES, Hot, Spec

HOPPER = (90,)
FLOATS = {GGMLType.F32: "*fp32", GGMLType.F16: "*fp16", GGMLType.BF16: "*bf16"}
PLAIN = Addends(None, None, None)
CORRECTED = Addends("*fp32", "*fp32", "*fp32")
CEILINGS = {
    GGMLType.Q4_0: 1.15,
    GGMLType.Q4_1: 1.3,
    GGMLType.Q5_0: 1.8,
    GGMLType.Q5_1: 1.8,
    GGMLType.Q8_0: 0.8,
    GGMLType.Q2_K: 1.85,
    GGMLType.Q3_K: 2.2,
    GGMLType.Q4_K: 1.5,
    GGMLType.Q5_K: 2.3,
    GGMLType.Q6_K: 2.2,
    GGMLType.IQ4_NL: 2.8,
    GGMLType.IQ4_XS: 2.9,
}
"""Instructions per weight with one row of activations. (2.5 is what a H200 can issue beside its memory.)"""


def planes(kind: GGMLType) -> PlanePointers:
    """The types of a matrix's planes."""
    if kind in FLOATS:
        return PlanePointers(FLOATS[kind], None, None, None)
    form = FORMATS[kind]
    high = "*i32" if form.high_bits else None
    halves = "*i32" if form.minimum else "*fp16"
    if not form.two_level:
        return PlanePointers("*i32", high, halves, None)
    return PlanePointers("*i32", high, "*i16" if form.minimum or form.halves else "*i8", halves)


def gemv_spec(
    name: str,
    kinds: Sequence[GGMLType],
    count: int,
    tile: Tiling,
    *,
    epilogue: Epilogue = Epilogue.STORE,
    rank: int = 0,
    is_even: bool = True,
    archs: tuple[int, ...] = HOPPER,
    ceiling: float | None = None,
) -> Spec:
    """A launch of `gemv` for matrices of `kinds` with `count` rows of activations."""
    added = CORRECTED if rank else PLAIN
    return Spec(
        name,
        gemv_kernel,
        {
            "segments": tuple(Segment(planes(kind), "i32:16", added, "*fp32", "i32:16") for kind in kinds),
            "columns": Columns("*i32", "*fp32", "*i32", "*fp32"),
            "projections": "*fp32" if rank else None,
        },
        {
            "width": WIDTH if is_even else WIDTH - 32,
            "formats": tuple(map(int, kinds)),
            "ranks": (rank,) * len(kinds),
            "epilogue": epilogue.value,
            "count": count,
            "block_rows": tile.rows,
            "block_groups": 32 * tile.warps,
            "unroll": tile.unroll,
            "is_even": is_even,
        },
        num_warps=tile.warps,
        archs=archs,
        hot=None if ceiling is None else Hot("IDP", 4 / count, ceiling),
    )


def gemm_spec(name: str, kinds: Sequence[GGMLType], count: int, archs: tuple[int, ...] = HOPPER) -> Spec:
    """A launch of `gemm` for `count` rows of activations."""
    tile = tile_for(count)
    return Spec(
        name,
        gemm_kernel,
        {
            "operands": tuple(Operand(planes(kind), "i32:16", "i32:16") for kind in kinds),
            "x": "*bf16",
            "partials": "*fp32",
            "count": "i32",
            "groups": "i32:16",
            "groups_of_split": "i32",
            "row_stride": "i32:16",
        },
        {"formats": tuple(map(int, kinds)), "block_rows": 64, "block_count": tile.columns, "block_groups": 4},
        num_warps=tile.warps,
        num_stages=tile.stages,
        archs=archs,
    )


def dequantize_spec(
    name: str, kind: GGMLType, out: str, *, ids: bool = False, archs: tuple[int, ...] = HOPPER
) -> Spec:
    """A launch of `dequantize`, or of `embed`."""
    return Spec(
        name,
        dequantize_kernel,
        {
            "planes": planes(kind),
            "ids": "*i64" if ids else None,
            "out": out,
            "start": "i32",
            "rows": "i32:16",
            "groups": "i32:16",
        },
        {"format": int(kind), "block_rows": 4, "block_groups": 32},
        archs=archs,
    )


def activations_spec(
    name: str, *, norm: bool, integers: bool, floats: str | None, vs: tuple[str, ...] = ()
) -> Spec:
    """A launch of `prepare`, theta of rank 4 for each of `vs`."""
    rounded = ("*i8", "*fp32", "*i32") if integers else (None, None, None)
    return Spec(
        name,
        activations_kernel,
        {
            "x": "*fp32",
            "x_stride": "i32:16",
            "norm": "*fp32" if norm else None,
            "epsilon": "fp32",
            **dict(zip(("integers", "scales", "sums"), rounded, strict=True)),
            "floats": floats,
            "vs": vs,
            "projections": "*fp32" if vs else None,
            "width": "i32:16",
        },
        {"ranks": (4,) * len(vs), "block_groups": 64, "block_width": 4096, "block_ranks": 4},
        num_warps=8,
    )


def finish_spec(name: str, matrices: int, epilogue: Epilogue, partials: str, rank: int, splits: int) -> Spec:
    """A launch of `finish`."""
    segment = Finished("i32:16", CORRECTED if rank else PLAIN, "*fp32", "i32:16")
    return Spec(
        name,
        finish_kernel,
        {
            "partials": partials,
            "segments": (segment,) * matrices,
            "projections": "*fp32" if rank else None,
            "split_stride": "i32:16",
            "row_stride": "i32:16",
        },
        {"ranks": (rank,) * matrices, "epilogue": epilogue.value, "splits": splits, "block": 256},
    )


WIDTH = 32768
"""Columns, a constant of the kernel: so many that loops remain."""
Q4, Q6 = GGMLType.Q4_K, GGMLType.Q6_K
ONE = tiling(22016, 4096, 1)

SPECS = [
    *(gemv_spec(f"gemv {kind.name}", [kind], 1, ONE, ceiling=CEILINGS[kind]) for kind in FORMATS),
    *(
        gemv_spec(f"gemv {kind.name}, {count} rows", [kind], count, tiling(4096, 4096, count), ceiling=most)
        for kind, count, most in ((Q4, 2, 2.2), (Q4, 4, 3.8), (Q4, 8, 6.1), (Q6, 2, 3.0), (Q6, 8, 7.2))
    ),
    *(gemv_spec(f"gemv {kind.name}", [kind], 1, ONE) for kind in FLOATS),
    gemv_spec("gemv Q5_K, 8 rows", [GGMLType.Q5_K], 8, tiling(4096, 4096, 8)),
    gemv_spec("gemv IQ4_XS, 8 rows", [GGMLType.IQ4_XS], 8, tiling(4096, 4096, 8)),
    gemv_spec("gemv F16, 8 rows", [GGMLType.F16], 8, tiling(4096, 4096, 8)),
    gemv_spec("gemv q, k, v", [Q4, Q4, Q6], 1, tiling(12288, 4096, 1), rank=4, archs=ARCHITECTURES),
    gemv_spec("gemv uneven", [Q4], 1, ONE, is_even=False, ceiling=1.7),
    gemv_spec(
        "gemv onto residual", [Q4], 1, tiling(4096, 4096, 1), epilogue=Epilogue.ADD, archs=ARCHITECTURES
    ),
    gemv_spec(
        "gemv gate, up", [Q4, Q4], 1, ONE, epilogue=Epilogue.GATE, rank=4, archs=ARCHITECTURES, ceiling=1.5
    ),
    *(gemm_spec(f"gemm {kind.name}", [kind], 16) for kind in FORMATS),
    gemm_spec("gemm q, k, v", [Q4, Q4, Q6], 32, ARCHITECTURES),
    gemm_spec("gemm Q4_K, 64 rows", [Q4], 64, ARCHITECTURES),
    gemm_spec("gemm Q4_K, 96 rows", [Q4], 96, ARCHITECTURES),
    *(dequantize_spec(f"dequantize {kind.name}", kind, "*bf16") for kind in FORMATS),
    dequantize_spec("embed Q4_K", Q4, "*fp32", ids=True, archs=ARCHITECTURES),
    activations_spec("norm and int8", norm=True, integers=True, floats=None),
    activations_spec("norm, int8, theta", norm=True, integers=True, floats=None, vs=("*i8",) * 3),
    activations_spec("int8, theta of floats", norm=False, integers=True, floats="*fp32", vs=("*fp32",)),
    activations_spec("norm to bf16", norm=True, integers=False, floats="*bf16", vs=("*i8", "*i8")),
    finish_spec("finish q, k, v", 3, Epilogue.STORE, "*fp32", 4, 2),
    finish_spec("finish onto residual", 1, Epilogue.ADD, "*bf16", 0, 1),
    finish_spec("finish gate, up", 2, Epilogue.GATE, "*bf16", 4, 1),
]
