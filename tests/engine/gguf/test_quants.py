"""Every decoder against the reference decoders, to the last bit."""

import tracemalloc
from math import prod
from operator import attrgetter

import numpy as np
import numpy.typing as npt
import pytest
from gguf import GGMLQuantizationType, quants
from gguf.constants import GGML_QUANT_SIZES
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from engine.gguf import NATIVE_TYPES, GGMLType, dequantize
from engine.gguf.quants.codecs import CODECS
from engine.gguf.types import type_name
from tests.support.gguf_files import random_blocks

NUMBERS = {
    GGMLType.F64: np.float64,
    GGMLType.I8: np.int8,
    GGMLType.I16: np.int16,
    GGMLType.I32: np.int32,
    GGMLType.I64: np.int64,
}
WITHOUT_ORACLE = {GGMLType.Q1_0, *NUMBERS}
WITH_ORACLE = [type for type in GGMLType if type not in WITHOUT_ORACLE]


def reference(data: npt.NDArray[np.uint8], type: GGMLType) -> npt.NDArray[np.float32]:
    with np.errstate(all="ignore"):
        values: npt.NDArray[np.float32] = quants.dequantize(data, GGMLQuantizationType(type))
    return values.astype(np.float32)


def bits_of(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint32]:
    """The bit patterns, all NaNs made one: which NaN an operation returns is the processor's choice."""
    bits = np.ascontiguousarray(values).view(np.uint32).copy()
    bits[np.isnan(values)] = 0x7FC00000
    return bits


def test_types_are_numbered_and_sized_as_in_ggml() -> None:
    for type in GGMLType:
        kind = GGMLQuantizationType(type)
        assert (type.name, type.block_size, type.type_size) == (kind.name, *GGML_QUANT_SIZES[kind])


def test_every_type_has_a_decoder() -> None:
    assert set(CODECS) == set(GGMLType)


def test_types_that_the_reference_knows_and_we_do_not_are_named() -> None:
    unknown = set(GGMLQuantizationType) - {GGMLQuantizationType(type) for type in GGMLType}
    assert {kind.name for kind in unknown} == {"Q8_1", "Q8_K"}
    assert [type_name(kind) for kind in unknown] == [kind.name for kind in unknown]
    assert type_name(4711) == "number 4711"


def test_native_types_are_packed_natively() -> None:
    assert {type for type in GGMLType if type.packed_natively} == NATIVE_TYPES
    assert GGMLType.Q4_K in NATIVE_TYPES
    assert GGMLType.IQ2_XXS not in NATIVE_TYPES


@pytest.mark.parametrize("type", WITH_ORACLE, ids=attrgetter("name"))
def test_dequantize_is_bit_exact(type: GGMLType) -> None:
    shape = (7, 3 * type.block_size)
    data = random_blocks(np.random.default_rng(type), type.name, shape)
    result = dequantize(data, type, shape)
    assert result.dtype == np.float32
    assert result.shape == shape
    assert np.isfinite(result).all()
    np.testing.assert_array_equal(bits_of(result), bits_of(reference(data, type).reshape(shape)))


@pytest.mark.parametrize("type", WITH_ORACLE, ids=attrgetter("name"))
@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_dequantize_is_bit_exact_for_any_bytes(type: GGMLType, data: st.DataObject) -> None:
    n_blocks = data.draw(st.integers(1, 4))
    packed = data.draw(arrays.arrays(np.uint8, (1, n_blocks * type.type_size)))
    result = dequantize(packed, type, (n_blocks * type.block_size,))
    np.testing.assert_array_equal(bits_of(result), bits_of(reference(packed, type).ravel()))


@pytest.mark.parametrize("type", NUMBERS, ids=attrgetter("name"))
def test_plain_numbers_are_rounded_to_float32(type: GGMLType) -> None:
    values = np.array([[0, 1, -1], [100, -128, 127]], NUMBERS[type])
    result = dequantize(values.view(np.uint8), type, values.shape)
    np.testing.assert_array_equal(result, values.astype(np.float32))


def test_one_bit_weights_are_plus_and_minus_the_scale() -> None:
    block = np.zeros(18, np.uint8)
    block[:2] = np.array([0.5], np.float16).view(np.uint8)
    block[2] = 0b101
    expected = np.full(128, -0.5, np.float32)
    expected[[0, 2]] = 0.5
    np.testing.assert_array_equal(dequantize(block, GGMLType.Q1_0, (128,)), expected)


@pytest.mark.parametrize("type", GGMLType, ids=attrgetter("name"))
def test_slabs_do_not_show(type: GGMLType) -> None:
    """More than one slab, and a tensor of three dimensions, give what single rows give."""
    shape = (2, 150, 1024)
    packed = np.random.default_rng(0).integers(
        0, 256, (*shape[:2], 1024 // type.block_size * type.type_size), np.uint8
    )
    whole = dequantize(packed, type, shape)
    for at in ((0, 0), (0, 127), (0, 128), (1, 149)):
        np.testing.assert_array_equal(bits_of(whole[at]), bits_of(dequantize(packed[at], type, (1024,))))


@pytest.mark.parametrize("type", [GGMLType.Q4_1, GGMLType.Q6_K, GGMLType.IQ3_S, GGMLType.TQ1_0])
def test_temporary_memory_stays_small(type: GGMLType) -> None:
    shape = (1024, 4096)
    packed = np.zeros(prod(shape) // type.block_size * type.type_size, np.uint8)
    tracemalloc.start()
    try:
        result = dequantize(packed, type, shape)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak - result.nbytes < 8 << 20


@pytest.mark.parametrize(
    ("data", "shape"),
    [
        (np.zeros(19, np.uint8), (32,)),
        (np.zeros(36, np.uint8), (32,)),
        (np.zeros(18, np.uint8), (31,)),
        (np.zeros(18, np.int8), (32,)),
    ],
)
def test_wrong_sizes_are_refused(data: npt.NDArray[np.uint8], shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="are no Q4_0 data of shape"):
        dequantize(data, GGMLType.Q4_0, shape)
