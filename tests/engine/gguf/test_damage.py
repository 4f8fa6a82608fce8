"""Damaged and hostile files: one clear line each, quickly, and without the memory that they claim."""

import os
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import ModelFileError
from engine.gguf import open_gguf
from tests.support.gguf_files import write_llama

U32, F32, BOOL, STRING, ARRAY = 4, 6, 7, 8, 9
HUGE = 2**64 - 1


def u32(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}I", *values)


def u64(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}Q", *values)


def text(content: bytes | str, length: int | None = None) -> bytes:
    raw = content.encode() if isinstance(content, str) else content
    return u64(len(raw) if length is None else length) + raw


def key(name: bytes | str, kind: int, value: bytes) -> bytes:
    return text(name) + u32(kind) + value


def tensor(
    name: bytes | str = "t",
    dims: tuple[int, ...] = (32,),
    kind: int = 0,
    offset: int = 0,
    n_dims: int | None = None,
) -> bytes:
    """`dims` innermost first, as in the file."""
    n_dims = len(dims) if n_dims is None else n_dims
    return text(name) + u32(n_dims) + u64(*dims) + u32(kind) + u64(offset)


def gguf(
    keys: list[bytes] | None = None,
    tensors: list[bytes] | None = None,
    *,
    data: int = 128,
    version: int = 3,
    n_keys: int | None = None,
    n_tensors: int | None = None,
) -> bytes:
    keys, tensors = keys or [], tensors or []
    header = b"GGUF" + u32(version)
    header += u64(len(tensors) if n_tensors is None else n_tensors, len(keys) if n_keys is None else n_keys)
    header += b"".join(keys) + b"".join(tensors)
    return header + bytes(-len(header) % 32) + bytes(data)


def nested(depth: int) -> bytes:
    return u32(ARRAY) + u64(1) + nested(depth - 1) if depth else u32(U32) + u64(1) + u32(7)


DAMAGE: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is empty"),
    "zip": (b"PK\x03\x04" + bytes(64), "a zip archive, perhaps a PyTorch checkpoint"),
    "pickle": (b"\x80\x02}q\x00", "a Python pickle"),
    "safetensors": (u64(16) + b'{"__metadata__":{}}' + bytes(16), "a safetensors file"),
    "ggml": (b"lmgg" + bytes(64), "the old ggml format"),
    "ggjt": (b"tjgg" + bytes(64), "the old ggjt format"),
    "lfs pointer": (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    "web page": (b"<!DOCTYPE html><html></html>", "a web page"),
    "noise": (b"\x01\x02\x03", "none that is known here"),
    "magic alone": (b"GGUF", "ends inside the version number"),
    "version 1": (gguf(version=1), "has GGUF version 1, known are 2 and 3; convert"),
    "version 4": (gguf(version=4), "has GGUF version 4, known are 2 and 3; too new"),
    "big-endian": (b"GGUF\x00\x00\x00\x03" + bytes(64), "is a big-endian GGUF file"),
    "no counts": (b"GGUF" + u32(3), "ends inside the number of tensors"),
    "tensor count": (gguf(n_tensors=HUGE), f"the number of tensors is {HUGE}, more than the rest"),
    "key count": (gguf(n_keys=HUGE), f"the number of metadata keys is {HUGE}, more than the rest"),
    "too many tensors": (gguf(n_tensors=2**17, data=2**22), "more than the 65536 allowed"),
    "key length": (gguf([text("", HUGE)]), "the length of a metadata key is"),
    "long key": (gguf([key("k" * 2000, U32, u32(1))]), "a metadata key has 2000 bytes"),
    "key not UTF-8": (gguf([key(b"\xff", U32, u32(1))]), "a metadata key is not UTF-8"),
    "key twice": (gguf([key("k", U32, u32(1))] * 2), "has the metadata key 'k' twice"),
    "value type": (gguf([key("k", 13, u32(1))]), "metadata 'k' has the unknown value type 13"),
    "cut value": (b"GGUF" + u32(3) + u64(0, 1) + key("k", U32, b"\x01"), "ends inside the value of 'k'"),
    "string length": (gguf([key("k", STRING, text("", HUGE))]), "the length of the value of 'k' is"),
    "bool": (gguf([key("k", BOOL, b"\x02")]), "metadata 'k' is a bool but neither 0 nor 1"),
    "array length": (gguf([key("k", ARRAY, u32(F32) + u64(2**62))]), "the length of array 'k' is"),
    "array length behind": (
        gguf([key("k", ARRAY, u32(F32) + u64(12))], data=0),
        "the length of array 'k' is 12, more than the rest",
    ),
    "array type": (gguf([key("k", ARRAY, u32(99) + u64(1) + u64(0))]), "has the unknown value type 99"),
    "bool array": (gguf([key("k", ARRAY, u32(BOOL) + u64(2) + b"\x01\x03")]), "is a bool but neither"),
    "strings in array": (
        gguf([key("k", ARRAY, u32(STRING) + u64(2) + text("a") + text("", HUGE))]),
        "a string of 'k' is longer than the rest of the file",
    ),
    "cut strings": (
        b"GGUF" + u32(3) + u64(0, 1) + key("k", ARRAY, u32(STRING) + u64(2) + text("abcd") + b"1234"),
        "the file ends inside the strings of 'k'",
    ),
    "deep arrays": (gguf([key("k", ARRAY, nested(9))]), "metadata 'k' nests arrays deeper than 4"),
    "many elements": (
        gguf([key("k", ARRAY, u32(0) + u64(2**22 + 1) + bytes(2**22 + 1))]),
        "more than 4194304 elements",
    ),
    "many arrays": (
        gguf([key("k", ARRAY, u32(ARRAY) + u64(2**17))], data=2**21),
        "more than 4194304 elements",
    ),
    "alignment zero": (gguf([key("general.alignment", U32, u32(0))]), "general.alignment is 0, not a power"),
    "alignment odd": (gguf([key("general.alignment", U32, u32(48))]), "general.alignment is 48, not a power"),
    "alignment huge": (gguf([key("general.alignment", U32, u32(2**31))]), "general.alignment is 2147483648"),
    "alignment bool": (gguf([key("general.alignment", BOOL, b"\x01")]), "general.alignment is True"),
    "alignment text": (
        gguf([key("general.alignment", STRING, text("x" * 999))]),
        "general.alignment is 'xxxxxxxxxxxx...xxxxxxxxxxxxx', not a power",
    ),
    "tensor name": (gguf([], [tensor(b"\xfe")]), "a tensor name is not UTF-8"),
    "tensor name length": (gguf([], [text("", 2**40) + bytes(64)]), "the length of a tensor name is"),
    "tensor twice": (gguf([], [tensor(), tensor(offset=128)], data=256), "has the tensor 't' twice"),
    "no dims": (gguf([], [tensor(dims=())]), "tensor 't' has 0 dimensions, not 1 to 4"),
    "five dims": (gguf([], [tensor(dims=(32, 1, 1, 1, 1))]), "tensor 't' has 5 dimensions, not 1 to 4"),
    "countless dims": (gguf([], [tensor(n_dims=2**32 - 1)]), "has 4294967295 dimensions, not 1 to 4"),
    "zero dim": (gguf([], [tensor(dims=(32, 0))]), "tensor 't' has the impossible shape (0, 32)"),
    "overflow": (gguf([], [tensor(dims=(2**32, 2**32))]), "tensor 't' has the impossible shape"),
    "unknown type": (gguf([], [tensor(kind=200)]), "tensor 't' has the ggml type number 200, which is not"),
    "withdrawn type": (gguf([], [tensor(kind=31)]), "tensor 't' has the ggml type Q4_0_4_4, which is not"),
    "intermediate type": (gguf([], [tensor(kind=15)]), "tensor 't' has the ggml type Q8_K, which is not"),
    "ragged rows": (
        gguf([], [tensor(dims=(33, 32), kind=2)], data=4096),
        "tensor 't' has rows of 33, no multiple of Q4_0's block of 32",
    ),
    "odd offset": (gguf([], [tensor(offset=8)], data=256), "tensor 't' has offset 8, no multiple of 32"),
    "far offset": (gguf([], [tensor(offset=2**63)]), "the data of tensor 't' ends at byte"),
    "huge tensor": (gguf([], [tensor(dims=(2**40,))]), "the data of tensor 't' ends at byte"),
    "cut data": (gguf([], [tensor()], data=127), "it is truncated; download or copy it again"),
    "overlap": (
        gguf([], [tensor("a"), tensor("b", offset=96)], data=256),
        "the data of tensors 'a' and 'b' overlap",
    ),
    "same place": (gguf([], [tensor("a"), tensor("b")], data=256), "the data of tensors 'a' and 'b' overlap"),
    "cut tensor list": (b"GGUF" + u32(3) + u64(1, 0) + text("a" * 24) + u32(1), "ends inside tensor 'aaaa"),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.gguf"


def test_the_builder_of_damage_builds_intact_files_too(path: Path) -> None:
    path.write_bytes(gguf([key("k", ARRAY, nested(3))], [tensor("a"), tensor("b", offset=128)], data=256))
    with open_gguf(path) as model:
        assert model.metadata["k"] == [[[[7]]]]
        assert model.dequantize("b").tolist() == [0.0] * 32


@pytest.mark.parametrize(("content", "message"), DAMAGE.values(), ids=DAMAGE.keys())
def test_damage_is_named_in_one_line_without_much_memory(path: Path, content: bytes, message: str) -> None:
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(ModelFileError) as caught:
            open_gguf(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    told = str(caught.value)
    assert told.startswith(f"{path}: ")
    assert message in told
    assert "\n" not in told
    assert len(told) < 400 + len(str(path))
    assert peak < 1 << 20


LONG = "\x1b[31m\n\u202e" * 80
"""A name of many bytes that a terminal must not see."""


@pytest.mark.parametrize(
    "content",
    [
        gguf([key(LONG, U32, u32(1))] * 2),
        gguf([key(LONG, 99, u32(1))]),
        gguf([key(LONG, BOOL, b"\x02")]),
        gguf([key(LONG, ARRAY, nested(9))]),
        gguf([key(LONG, ARRAY, u32(STRING) + u64(1) + text("", HUGE))]),
        gguf([], [tensor(LONG)] * 2, data=256),
        gguf([], [tensor(LONG, kind=200)]),
        gguf([], [tensor(LONG, dims=(32, 0))]),
        gguf([], [tensor(LONG, offset=8)], data=256),
        gguf([], [tensor(LONG)], data=127),
        gguf([], [tensor(LONG), tensor(LONG + "x")], data=256),
    ],
    ids=range(11),
)
def test_names_are_short_and_printable_in_messages(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(ModelFileError) as caught:
        open_gguf(path)
    message = str(caught.value)
    assert message.isprintable()
    assert r"'\x1b[31m\n\u202e" in message
    assert len(message) < len(str(path)) + 250


def test_a_string_that_is_there_may_be_long(path: Path) -> None:
    path.write_bytes(gguf([key("k", STRING, text("x" * 5000))]))
    with open_gguf(path) as model:
        assert len(model.metadata["k"]) == 5000


def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    link = tmp_path / "link"
    link.symlink_to(link)
    for path, message in [
        (tmp_path, "is a directory"),
        (tmp_path / "none.gguf", "cannot be read: No such file"),
        (pipe, "is not a regular file"),
        (link, "cannot be read"),
    ]:
        with pytest.raises(ModelFileError, match=message):
            open_gguf(path)


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A model with a header of a size that a fuzzer meets every part of."""
    few: dict[str, Any] = {
        f"tokenizer.ggml.{name}": None for name in ("tokens", "token_type", "merges", "model", "pre")
    }
    few |= {
        "a.bool": True,
        "some.strings": ["ab", "c"],
        "some.numbers": [1, 2, 3],
        "tokenizer.chat_template": None,
    }
    folder = tmp_path_factory.mktemp("intact")
    return write_llama(
        folder / "tiny.gguf", n_layers=1, n_heads=1, n_kv_heads=1, n_ff=32, metadata=few
    ).read_bytes()


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "model.gguf"


def opens_or_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    try:
        model = open_gguf(path)
    except ModelFileError:
        return
    with model:
        for name, info in model.tensors.items():
            assert model.data(name).size == info.n_bytes
            assert model.dequantize(name).shape == info.shape


@given(data=st.data())
@settings(max_examples=400, deadline=None)
def test_flipped_bytes_open_or_are_refused(intact: bytes, scratch: Path, data: st.DataObject) -> None:
    content = bytearray(intact)
    header = 3000
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(4, header))] = data.draw(st.sampled_from([0, 1, 2, 9, 127, 128, 255]))
    opens_or_is_refused(scratch, bytes(content))


@given(size=st.integers(0, 5000))
@settings(max_examples=200, deadline=None)
def test_cut_files_are_refused(intact: bytes, scratch: Path, size: int) -> None:
    scratch.write_bytes(intact[:size])
    with pytest.raises(ModelFileError):
        open_gguf(scratch)


@given(at=st.integers(8, 3000), word=st.sampled_from([0, 1, 2**31, 2**32, 2**62, 2**63, HUGE]))
@settings(max_examples=400, deadline=None)
def test_replaced_counts_open_or_are_refused(intact: bytes, scratch: Path, at: int, word: int) -> None:
    opens_or_is_refused(scratch, intact[:at] + u64(word) + intact[at + 8 :])


@given(noise=st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_noise_after_the_magic_opens_or_is_refused(scratch: Path, noise: bytes) -> None:
    opens_or_is_refused(scratch, b"GGUF" + u32(3) + noise)
