"""Which codec decodes which type."""

from collections.abc import Mapping

from engine.gguf.quants import iq4, iq_grid, k_quants, plain, simple, ternary
from engine.gguf.quants.blocks import Codec
from engine.gguf.types import GGMLType

CODECS: Mapping[GGMLType, Codec] = {
    GGMLType.F32: plain.numbers("<f4"),
    GGMLType.F16: plain.numbers("<f2"),
    GGMLType.Q4_0: simple.q4_0,
    GGMLType.Q4_1: simple.q4_1,
    GGMLType.Q5_0: simple.q5_0,
    GGMLType.Q5_1: simple.q5_1,
    GGMLType.Q8_0: simple.q8_0,
    GGMLType.Q2_K: k_quants.q2_k,
    GGMLType.Q3_K: k_quants.q3_k,
    GGMLType.Q4_K: k_quants.q4_k,
    GGMLType.Q5_K: k_quants.q5_k,
    GGMLType.Q6_K: k_quants.q6_k,
    GGMLType.IQ2_XXS: iq_grid.iq2_xxs,
    GGMLType.IQ2_XS: iq_grid.iq2_xs,
    GGMLType.IQ3_XXS: iq_grid.iq3_xxs,
    GGMLType.IQ1_S: iq_grid.iq1_s,
    GGMLType.IQ4_NL: iq4.iq4_nl,
    GGMLType.IQ3_S: iq_grid.iq3_s,
    GGMLType.IQ2_S: iq_grid.iq2_s,
    GGMLType.IQ4_XS: iq4.iq4_xs,
    GGMLType.I8: plain.numbers("i1"),
    GGMLType.I16: plain.numbers("<i2"),
    GGMLType.I32: plain.numbers("<i4"),
    GGMLType.I64: plain.numbers("<i8"),
    GGMLType.F64: plain.numbers("<f8"),
    GGMLType.IQ1_M: iq_grid.iq1_m,
    GGMLType.BF16: plain.bf16,
    GGMLType.TQ1_0: ternary.tq1_0,
    GGMLType.TQ2_0: ternary.tq2_0,
    GGMLType.MXFP4: iq4.mxfp4,
    GGMLType.NVFP4: iq4.nvfp4,
    GGMLType.Q1_0: simple.q1_0,
}
