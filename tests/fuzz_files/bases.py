"""The tiny valid models that mutants are made of."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converter.writer import write_nkat, write_sidecar
from engine.gguf import open_gguf
from tests.converter.thetas import random_theta
from tests.fuzz_files.layout import Content, Layout
from tests.support.gguf_files import write_llama
from tests.support.stars import block_matrices

MODEL = "model.gguf"


@dataclass(frozen=True)
class Base:
    """Files by name; how they are loaded: the model's name, that of a sidecar, that of a draft model."""

    name: str
    files: Mapping[str, Layout]
    model: str = MODEL
    sidecar: str | None = None
    draft: str | None = None


def write_bases(folder: Path) -> list[Base]:
    """All of them; the same bytes each time."""
    return [make(folder) for make in _MAKERS]


def _plain(folder: Path) -> Base:
    return _one("plain", write_llama(folder / "a.gguf", type="Q4_1", bias=True, **_SMALL))


def _k_types(folder: Path) -> Base:
    types = {
        "token_embd*": "Q6_K",
        "*attn_q.weight": "Q4_K",
        "*attn_k.weight": "Q5_K",
        "*attn_v.weight": "Q3_K",
        "*attn_output*": "Q2_K",
        "*ffn_gate*": "IQ4_XS",
        "*": "Q4_K",
    }
    made = write_llama(
        folder / "b.gguf", type=types, tokenizer="llama", n_ff=256, n_layers=1, rope_scaling="yarn"
    )
    return _one("k types", made)


def _floats(folder: Path) -> Base:
    types = {"token_embd*": "F16", "output*": "F32", "*attn_q*": "BF16", "*ffn*": "F16", "*": "F32"}
    made = write_llama(folder / "c.gguf", type=types, tied=False, rope_scaling="llama3", **_SMALL)
    return _one("floats", made)


def _old_types(folder: Path) -> Base:
    types = {
        "token_embd*": "Q8_0",
        "output*": "Q5_0",
        "*attn_q*": "Q5_1",
        "*attn_k*": "IQ4_NL",
        "*attn_v*": "MXFP4",
        "*ffn_gate*": "NVFP4",
        "*": "Q4_0",
    }
    made = write_llama(
        folder / "d.gguf", type=types, tied=False, tokenizer="llama", rope_scaling="linear", **_SMALL
    )
    return _one("old types", made)


def _theta(folder: Path) -> Base:
    base = write_llama(folder / "e.gguf", type="Q8_0", **_SMALL)
    with open_gguf(base) as file:
        write_nkat(file, random_theta(file, block_matrices(base), 4), folder / "e.nkat")
    return _one("theta", folder / "e.nkat")


def _sidecar(folder: Path) -> Base:
    base = write_llama(folder / "f.gguf", type="Q4_0", n_layers=1, n_ff=64)
    with open_gguf(base) as file:
        write_sidecar(random_theta(file, block_matrices(base), 2), folder / "f.bin", "llama")
    # Another model than the sidecar was made for is refused by its checksum: only the sidecar changes.
    return Base(
        "sidecar", {"theta.bin": Layout.read(folder / "f.bin"), MODEL: Layout.read(base)}, sidecar="theta.bin"
    )


def _split(folder: Path) -> Base:
    whole = Layout.read(write_llama(folder / "g.gguf", type="Q4_1", n_layers=1, n_ff=64)).content
    names = [f"model-0000{number}-of-00002.gguf" for number in (1, 2)]
    half = len(whole.tensors) // 2
    files = {}
    for number, tensors in enumerate((whole.tensors[:half], whole.tensors[half:])):
        about = {
            key: _u16(key, value)
            for key, value in (
                ("split.no", number),
                ("split.count", 2),
                ("split.tensors.count", len(whole.tensors)),
            )
        }
        entries = {**(whole.entries if number == 0 else {}), **about}
        path = folder / names[number]
        path.write_bytes(Content(entries, tensors).write())
        files[names[number]] = Layout.read(path)
    return Base("split", files, model=names[0])


def _draft(folder: Path) -> Base:
    files = {
        "draft.gguf": Layout.read(write_llama(folder / "h.gguf", type="Q4_1", n_layers=1, n_ff=64)),
        MODEL: Layout.read(write_llama(folder / "i.gguf", type="Q8_0", n_layers=1, n_ff=64, seed=1)),
    }
    return Base("draft", files, draft="draft.gguf")


_SMALL: dict[str, Any] = {"n_layers": 1, "n_ff": 64}
_MAKERS: tuple[Callable[[Path], Base], ...] = (
    _plain,
    _k_types,
    _floats,
    _old_types,
    _theta,
    _sidecar,
    _split,
    _draft,
)


def _one(name: str, path: Path) -> Base:
    return Base(name, {MODEL: Layout.read(path)})


def _u16(key: str, value: int) -> bytes:
    return (
        len(key).to_bytes(8, "little")
        + key.encode()
        + (2).to_bytes(4, "little")
        + value.to_bytes(2, "little")
    )
