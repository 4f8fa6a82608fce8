"""Writes tiny random GGUF models, with the reference writer, for the tests of every package."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType, GGUFValueType, GGUFWriter, TokenType, quants
from gguf.constants import GGML_QUANT_SIZES

Array = npt.NDArray[Any]

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

WORDS = (" the", " and", " hello", " world", "hello", "The", " of", " to", "ing", "er", " is", " a", "\n\n")
"""The words that the vocabularies know whole, with the pieces on the way to them."""


@dataclass(frozen=True)
class Tensor:
    """Packed bytes (n rows x bytes of a row, or flat for one dimension) and their ggml type."""

    data: Array
    type: GGMLQuantizationType


def write_llama(
    path: Path,
    *,
    type: str | Mapping[str, str] = "Q4_1",
    architecture: str = "llama",
    tokenizer: str = "gpt2",
    vocab_size: int | None = None,
    n_layers: int = 2,
    n_embd: int | None = None,
    n_heads: int = 4,
    n_kv_heads: int = 2,
    n_ff: int | None = None,
    head_dim: int | None = None,
    context_length: int = 256,
    rope_freq_base: float = 10000.0,
    rope_scaling: str | None = None,
    rope_factor: float = 4.0,
    tied: bool = True,
    bias: bool = False,
    qk_norm: bool = False,
    chat_template: str | None = CHATML,
    seed: int = 0,
    metadata: Mapping[str, Any] | None = None,
    drop: Collection[str] = (),
) -> Path:
    """Write a model of llama's tensors and return `path`.

    `type` names the type of all matrices, or maps glob patterns of tensor names to types, the first that
    matches counting and F32 where none does (`{"output.weight": "Q6_K", "*": "Q4_0"}`). Vectors are F32.
    `n_embd` defaults to the largest block of the types, at least 64; `n_ff` to twice that. `rope_scaling` is
    None, "linear", "yarn" or "llama3" (a `rope_freqs.weight` tensor). `metadata` adds or replaces keys, None
    removes one; `drop` leaves tensors out. Weights have a standard deviation of 1 / sqrt(inputs).
    """
    types = {"*": type} if isinstance(type, str) else dict(type)
    n_embd = n_embd or max([64, *(_block_size(name) for name in types.values())])
    n_ff = n_ff or 2 * n_embd
    head_dim = head_dim or n_embd // n_heads
    rng = np.random.default_rng(seed)
    vocabulary = _gpt2_vocabulary() if tokenizer == "gpt2" else _llama_vocabulary()
    _pad(vocabulary, vocab_size)
    n_vocab = len(vocabulary["tokenizer.ggml.tokens"])

    keys: dict[str, Any] = {
        "general.architecture": architecture,
        "general.name": "Tiny random",
        f"{architecture}.vocab_size": n_vocab,
        f"{architecture}.context_length": context_length,
        f"{architecture}.embedding_length": n_embd,
        f"{architecture}.block_count": n_layers,
        f"{architecture}.feed_forward_length": n_ff,
        f"{architecture}.attention.head_count": n_heads,
        f"{architecture}.attention.head_count_kv": n_kv_heads,
        f"{architecture}.attention.layer_norm_rms_epsilon": 1e-5,
        f"{architecture}.rope.dimension_count": head_dim,
        f"{architecture}.rope.freq_base": rope_freq_base,
        **vocabulary,
        "tokenizer.chat_template": chat_template,
    }
    if head_dim != n_embd // n_heads:
        keys |= {f"{architecture}.attention.{part}_length": head_dim for part in ("key", "value")}
    if rope_scaling in ("linear", "yarn"):
        keys[f"{architecture}.rope.scaling.type"] = rope_scaling
        keys[f"{architecture}.rope.scaling.factor"] = rope_factor
        keys[f"{architecture}.rope.scaling.original_context_length"] = int(context_length / rope_factor)
    keys |= metadata or {}

    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (n_vocab, n_embd)}
    if rope_scaling == "llama3":
        shapes["rope_freqs.weight"] = (head_dim // 2,)
    for layer in range(n_layers):
        block = {
            "attn_norm.weight": (n_embd,),
            "attn_q.weight": (n_heads * head_dim, n_embd),
            "attn_k.weight": (n_kv_heads * head_dim, n_embd),
            "attn_v.weight": (n_kv_heads * head_dim, n_embd),
            "attn_output.weight": (n_embd, n_heads * head_dim),
            "ffn_norm.weight": (n_embd,),
            "ffn_gate.weight": (n_ff, n_embd),
            "ffn_up.weight": (n_ff, n_embd),
            "ffn_down.weight": (n_embd, n_ff),
        }
        if bias:
            block |= {f"attn_{part}.bias": block[f"attn_{part}.weight"][:1] for part in "qkv"}
        if qk_norm:
            block |= {f"attn_{part}_norm.weight": (head_dim,) for part in "qk"}
        shapes |= {f"blk.{layer}.{name}": shape for name, shape in block.items()}
    shapes["output_norm.weight"] = (n_embd,)
    if not tied:
        shapes["output.weight"] = (n_vocab, n_embd)

    tensors = {
        name: random_tensor(rng, _type_of(name, shape, types), shape, name)
        for name, shape in shapes.items()
        if name not in drop
    }
    return write_gguf(path, keys, tensors)


def write_gguf(path: Path, metadata: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Path:
    """Write any metadata and tensors, in order, and return `path`. Keys that are None are left out."""
    writer = GGUFWriter(path, str(metadata.get("general.architecture", "llama")))
    for key, value in metadata.items():
        if value is not None and key != "general.architecture":
            _add(writer, key, value)
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor.data, raw_dtype=tensor.type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def random_tensor(
    rng: np.random.Generator, type: str, shape: tuple[int, ...], name: str = "x.weight"
) -> Tensor:
    """A tensor of `shape` in `type`: matrices of deviation 1 / sqrt(inputs), norms around 1, small biases."""
    if name == "rope_freqs.weight":
        values = np.geomspace(1, 8, shape[0])
    elif name.endswith(".bias"):
        values = rng.normal(0, 0.02, shape)
    elif len(shape) == 1:
        values = rng.normal(1, 0.1, shape)
    else:
        values = rng.normal(0, shape[-1] ** -0.5, shape)
    return pack(rng, type, values.astype(np.float32))


def pack(rng: np.random.Generator, type: str, values: npt.NDArray[np.float32]) -> Tensor:
    """`values` in `type`; where the reference package cannot quantise, random blocks of their deviation."""
    kind = GGMLQuantizationType[type]
    if type in _NUMBERS:
        return Tensor(values.astype(_NUMBERS[type]), kind)
    try:
        return Tensor(quants.quantize(values, kind), kind)
    except NotImplementedError:
        return Tensor(random_blocks(rng, type, values.shape, float(values.std())), kind)


_NUMBERS = {"F64": np.float64, "I8": np.int8, "I16": np.int16, "I32": np.int32, "I64": np.int64}

_HALVES = {
    "Q2_K": {80: 1.0, 82: 1.5},
    "Q3_K": {108: 1.0},
    "Q4_K": {0: 1.0, 2: 7.5},
    "Q5_K": {0: 1.0, 2: 15.5},
    "Q6_K": {208: 1.0},
    "TQ1_0": {52: 1.0},
    "TQ2_0": {64: 1.0},
}
"""Where float16 scales are, if not in byte 0 alone, with ratios that give values around 0."""


def random_blocks(
    rng: np.random.Generator, type: str, shape: tuple[int, ...], deviation: float = 1.0
) -> Array:
    """Random valid blocks with finite scales, uint8 (*rows, bytes of a row)."""
    kind = GGMLQuantizationType[type]
    block_size, type_size = GGML_QUANT_SIZES[kind]
    if block_size == 1:
        return pack(rng, type, rng.normal(0, deviation, shape).astype(np.float32)).data.view(np.uint8)
    blocks = rng.integers(0, 256, (int(np.prod(shape)) // block_size, type_size), np.uint8)
    _set_scale(blocks, type, 1.0)
    # ggml's one-bit type has no reference decoder; its values are plus and minus the scale
    spread = 1.0 if type == "Q1_0" else float(quants.dequantize(blocks, kind).std())
    _set_scale(blocks, type, deviation / spread)
    return blocks.reshape(*shape[:-1], -1)


def _set_scale(blocks: Array, type: str, scale: float) -> None:
    if type == "MXFP4":
        blocks[:, 0] = 127 + np.rint(np.log2(scale))
        return
    if type == "NVFP4":
        blocks[:, :4] = quants.NVFP4.fp32_to_ue4m3(np.array([scale], np.float32))
        return
    if type == "IQ1_M":
        # the four nibbles of one float16 are the uppermost of four words
        nibbles = np.float16(scale).view(np.uint16) >> np.array([0, 4, 8, 12], np.uint16) & 15
        blocks[:, 49::2] = blocks[:, 49::2] & 15 | nibbles.astype(np.uint8) << 4
        return
    for at, ratio in _HALVES.get(type, {0: 1.0}).items():
        blocks[:, at : at + 2] = np.array([scale * ratio], np.float16).view(np.uint8)


def _type_of(name: str, shape: tuple[int, ...], types: Mapping[str, str]) -> str:
    if len(shape) == 1:
        return types.get(name, "F32")
    return next((type for pattern, type in types.items() if fnmatchcase(name, pattern)), "F32")


def _block_size(type: str) -> int:
    return GGML_QUANT_SIZES[GGMLQuantizationType[type]][0]


def _add(writer: GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        kind = GGUFValueType.UINT32 if 0 <= value < 1 << 32 else GGUFValueType.INT64
        writer.add_key_value(key, value, kind)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)


def _gpt2_vocabulary() -> dict[str, Any]:
    symbols = _byte_symbols()
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *symbols]
    merges = []
    for word in WORDS:
        pieces = [symbols[byte] for byte in word.encode()]
        left = pieces[0]
        for right in pieces[1:]:
            if left + right not in tokens:
                merges.append(f"{left} {right}")
                tokens.append(left + right)
            left += right
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [int(TokenType.CONTROL)] * 3
        + [int(TokenType.NORMAL)] * (len(tokens) - 3),
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.padding_token_id": 2,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.ggml.add_space_prefix": False,
    }


def _byte_symbols() -> list[str]:
    """The printable character that stands for each byte in GPT-2's vocabulary."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


def _llama_vocabulary() -> dict[str, Any]:
    pieces: list[str] = []
    for word in WORDS:
        text = word.replace(" ", "▁")
        pieces += [text[:end] for end in range(2, len(text) + 1) if text[:end] not in pieces]
    pieces += sorted({chr(code) for code in range(0x21, 0x7F)} | {"▁", "é", "ü", "日", "本"})
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]
    kinds = [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL]
    kinds += [TokenType.BYTE] * 256 + [TokenType.NORMAL] * len(pieces)
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": [0.0] * 259 + [-float(rank) for rank in range(len(pieces))],
        "tokenizer.ggml.token_type": [int(kind) for kind in kinds],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_eos_token": False,
    }


def _pad(vocabulary: dict[str, Any], size: int | None) -> None:
    """Fill the vocabulary up to `size` with unused tokens."""
    tokens = vocabulary["tokenizer.ggml.tokens"]
    missing = (size or len(tokens)) - len(tokens)
    if missing < 0:
        raise ValueError(f"the vocabulary has {len(tokens)} tokens already")
    tokens += [f"[PAD{number}]" for number in range(missing)]
    vocabulary["tokenizer.ggml.token_type"] += [int(TokenType.UNUSED)] * missing
    if "tokenizer.ggml.scores" in vocabulary:
        vocabulary["tokenizer.ggml.scores"] += [-1e4] * missing
