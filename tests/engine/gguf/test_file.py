"""What an intact file gives: metadata, tensors, bytes and values as the reference reader has them."""

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter, quants

from engine.errors import ModelFileError
from engine.gguf import GGMLType, TensorInfo, open_gguf
from tests.support.gguf_files import Tensor, write_gguf, write_llama


def reference_metadata(path: Path) -> dict[str, Any]:
    fields = GGUFReader(path).fields
    return {key: field.contents() for key, field in fields.items() if not key.startswith("GGUF.")}


@pytest.mark.parametrize("tokenizer", ["gpt2", "llama"])
def test_metadata_is_that_of_the_reference(tmp_path: Path, tokenizer: str) -> None:
    path = write_llama(tmp_path / "tiny.gguf", tokenizer=tokenizer, rope_scaling="yarn")
    expected = reference_metadata(path)
    with open_gguf(path) as model:
        assert model.version == 3
        assert model.path == path
        assert dict(model.metadata) == expected
        assert list(model.metadata) == list(expected)


def test_every_value_type_is_read(tmp_path: Path) -> None:
    path = tmp_path / "values.gguf"
    writer = GGUFWriter(path, "llama")
    scalars: dict[GGUFValueType, Any] = {
        GGUFValueType.UINT8: 255,
        GGUFValueType.INT8: -128,
        GGUFValueType.UINT16: 65535,
        GGUFValueType.INT16: -32768,
        GGUFValueType.UINT32: 2**32 - 1,
        GGUFValueType.INT32: -(2**31),
        GGUFValueType.FLOAT32: 0.5,
        GGUFValueType.BOOL: True,
        GGUFValueType.STRING: "grüße\n日本",
        GGUFValueType.UINT64: 2**64 - 1,
        GGUFValueType.INT64: -(2**63),
        GGUFValueType.FLOAT64: 0.1,
    }
    for kind, value in scalars.items():
        writer.add_key_value(kind.name, value, kind)
        writer.add_key_value(f"{kind.name}s", [value] * 3, GGUFValueType.ARRAY, sub_type=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with open_gguf(path) as model:
        for kind, value in scalars.items():
            found = model.metadata[kind.name]
            assert found == value
            assert type(found) is type(value)
            assert model.metadata[f"{kind.name}s"] == [value] * 3
            assert type(model.metadata[f"{kind.name}s"][0]) is type(value)


def test_tensors_are_those_of_the_reference(tmp_path: Path) -> None:
    types = {"token_embd.weight": "Q8_0", "*attn_v*": "Q6_K", "*": "Q4_K"}
    path = write_llama(tmp_path / "tiny.gguf", type=types, tied=False, bias=True)
    reference = GGUFReader(path).tensors
    with open_gguf(path) as model:
        assert list(model.tensors) == [tensor.name for tensor in reference]
        for expected in reference:
            info = model.tensors[expected.name]
            assert info.type == GGMLType(expected.tensor_type)
            assert info.shape == tuple(reversed(expected.shape.tolist()))
            assert (info.n_bytes, info.offset) == (expected.n_bytes, expected.data_offset)
            assert info.n_elements == expected.n_elements
            data = model.data(info.name)
            assert data.shape == (*info.shape[:-1], info.row_bytes)
            np.testing.assert_array_equal(data.ravel(), expected.data.view(np.uint8).ravel())
            values = quants.dequantize(expected.data, expected.tensor_type).reshape(info.shape)
            np.testing.assert_array_equal(model.dequantize(info.name), values)


def test_one_two_three_and_four_dimensions(tmp_path: Path) -> None:
    tensors = {
        f"{n}d": Tensor(np.arange(2**n, dtype=np.float32).reshape([2] * n), GGMLQuantizationType.F32)
        for n in range(1, 5)
    }
    with open_gguf(write_gguf(tmp_path / "dims.gguf", {}, tensors)) as model:
        for name, tensor in tensors.items():
            np.testing.assert_array_equal(model.dequantize(name), tensor.data)


def test_data_is_a_read_only_view_that_outlives_the_file(tmp_path: Path) -> None:
    path = write_llama(tmp_path / "tiny.gguf")
    model = open_gguf(path)
    data = model.data("token_embd.weight")
    assert data.base is not None
    assert not data.flags.writeable
    copy = data.copy()
    model.close()
    model.close()
    np.testing.assert_array_equal(data, copy)
    assert "token_embd.weight" in model.tensors
    with pytest.raises(ValueError, match="is closed"):
        model.data("token_embd.weight")
    with pytest.raises(ValueError, match="is closed"):
        model.sha256()


def test_a_tensor_that_is_not_there_is_named(tmp_path: Path) -> None:
    with open_gguf(write_llama(tmp_path / "tiny.gguf", drop=["output_norm.weight"])) as model:
        for read in (model.data, model.dequantize):
            with pytest.raises(ModelFileError, match=r"tiny\.gguf: has no tensor 'output_norm\.weight'"):
                read("output_norm.weight")


def test_sha256_is_that_of_the_bytes(tmp_path: Path) -> None:
    path = write_llama(tmp_path / "tiny.gguf")
    with open_gguf(path) as model:
        assert model.sha256() == hashlib.sha256(path.read_bytes()).hexdigest()


def test_version_2_is_read(tmp_path: Path) -> None:
    path = write_llama(tmp_path / "tiny.gguf")
    content = bytearray(path.read_bytes())
    content[4] = 2
    path.write_bytes(content)
    with open_gguf(path) as model:
        assert model.version == 2
        assert model.dequantize("output_norm.weight").shape == (64,)


def test_bytes_that_are_no_utf8_are_replaced(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", {"odd": "ab?cd", "odds": ["?", "fine"]}, {})
    path.write_bytes(path.read_bytes().replace(b"?", b"\xff"))
    with open_gguf(path) as model:
        assert model.metadata["odd"] == "ab\N{REPLACEMENT CHARACTER}cd"
        assert model.metadata["odds"] == ["\N{REPLACEMENT CHARACTER}", "fine"]


def test_a_custom_alignment_is_heeded(tmp_path: Path) -> None:
    path = tmp_path / "aligned.gguf"
    writer = GGUFWriter(path, "llama")
    writer.add_custom_alignment(4096)
    for name in "ab":
        writer.add_tensor(name, np.full(3, ord(name), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with open_gguf(path) as model:
        assert [tensor.offset % 4096 for tensor in model.tensors.values()] == [0, 0]
        assert model.dequantize("b").tolist() == [98.0] * 3


def test_a_file_without_tensors_is_a_file(tmp_path: Path) -> None:
    with open_gguf(write_gguf(tmp_path / "vocabulary.gguf", {"a": 1}, {})) as model:
        assert dict(model.tensors) == {}
        assert model.metadata["a"] == 1


def test_tensor_info_is_plain_data() -> None:
    info = TensorInfo("x", GGMLType.Q4_1, (3, 64), 120, 0)
    assert (info.n_elements, info.row_bytes, info.part) == (192, 40, 0)


def test_neither_torch_nor_the_reference_package_is_imported() -> None:
    probe = "import engine.gguf, sys; print({'torch', 'gguf'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
