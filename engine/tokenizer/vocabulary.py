"""The list of tokens of a GGUF file, checked, with the roles that single tokens play.

Which tokens end a generation, and which are control tokens whatever the file says, follows
llama.cpp's vocabulary loader.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.errors import ModelFileError
from engine.gguf import StringArray
from engine.printable import quoted
from engine.tokenizer.metadata import read, read_list

TOKENS = "tokenizer.ggml.tokens"

MAX_TOKENS = 1 << 20
"""Four times the largest vocabulary in use."""

MAX_TOKEN_LENGTH = 1024
"""Characters. The work at load grows with the square of a token's length."""


class TokenType(IntEnum):
    """`tokenizer.ggml.token_type`; any other number counts as undefined."""

    UNDEFINED = 0
    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


_END_NAMES = (
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|calls|>",
    "<|flush|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<｜end▁of▁sentence｜>",
    "[e~[",
)

_INFILL_NAMES = {
    "pre": (
        "<|fim_prefix|>",
        "<fim-prefix>",
        "<fim_prefix>",
        "<｜fim▁begin｜>",
        "<PRE>",
        "▁<PRE>",
        "<|code_prefix|>",
        "<|prefix|>",
    ),
    "suf": (
        "<|fim_suffix|>",
        "<fim-suffix>",
        "<fim_suffix>",
        "<｜fim▁hole｜>",
        "<SUF>",
        "▁<SUF>",
        "<|code_suffix|>",
        "<|suffix|>",
    ),
    "mid": (
        "<|fim_middle|>",
        "<fim-middle>",
        "<fim_middle>",
        "<｜fim▁end｜>",
        "<MID>",
        "▁<MID>",
        "<|code_middle|>",
        "<|middle|>",
    ),
    "pad": ("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"),
    "rep": ("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"),
    "sep": ("<|file_sep|>",),
}
_INFILL_ENDS = ("pad", "rep", "sep")


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Tokens by id. `scores` is empty where the file has none; `types`, int64, holds `TokenType` numbers.

    `bos_id`, `eos_id` and `unknown_id` are None where the file names none. A file of SentencePiece
    style that names none gets llama.cpp's 1, 2 and 0.
    """

    tokens: list[str]
    ids: dict[str, int]
    scores: Sequence[float]
    types: npt.NDArray[np.int64]
    bos_id: int | None
    eos_id: int | None
    unknown_id: int | None
    end_ids: frozenset[int]

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> "Vocabulary":
        """Read and check `tokenizer.ggml.*`. Raises ModelFileError, one line."""
        tokens = _tokens(metadata)
        size = len(tokens)
        ids = dict(zip(tokens, range(size), strict=True))
        if len(ids) != size:
            twice = next(token for i, token in enumerate(tokens) if ids[token] != i)
            raise ModelFileError(f"{TOKENS} has the token {quoted(twice)} twice")
        scores = read_list(metadata, "tokenizer.ggml.scores", (float, int), size) or []
        if any(map(math.isnan, scores)):
            raise ModelFileError("tokenizer.ggml.scores holds a value that is no number")
        types = _types(metadata, size)
        defaults = (1, 2, 0) if metadata.get("tokenizer.ggml.model") == "llama" else (None, None, None)
        bos, eos, unknown = (
            _special_id(metadata, name, size, default)
            for name, default in zip(("bos", "eos", "unknown"), defaults, strict=True)
        )
        return cls(tokens, ids, scores, types, bos, eos, unknown, _end_ids(metadata, tokens, ids, types, eos))

    def of_type(self, *types: TokenType) -> list[int]:
        """Ids of all tokens of these types, ascending."""
        ids: list[int] = np.flatnonzero(np.isin(self.types, types)).tolist()
        return ids


def _tokens(metadata: Mapping[str, Any]) -> list[str]:
    tokens = read_list(metadata, TOKENS, (str,))
    if not tokens:
        raise ModelFileError(f"{TOKENS} is missing: the file has no usable tokenizer")
    if len(tokens) > MAX_TOKENS:
        raise ModelFileError(f"{TOKENS} has {len(tokens)} tokens; at most {MAX_TOKENS} are accepted")
    if isinstance(tokens, StringArray) and tokens.sizes.min() > 0 and tokens.sizes.max() <= MAX_TOKEN_LENGTH:
        return list(tokens)
    longest = max(map(len, tokens))
    if longest > MAX_TOKEN_LENGTH:
        raise ModelFileError(f"{TOKENS} has a token of {longest} characters; at most {MAX_TOKEN_LENGTH} fit")
    try:
        "".join(tokens).encode()
    except UnicodeEncodeError:
        raise ModelFileError(f"{TOKENS} has a token that is not Unicode text") from None
    return [token or f"[EMPTY_{i}]" for i, token in enumerate(tokens)]


def _types(metadata: Mapping[str, Any], size: int) -> npt.NDArray[np.int64]:
    types = read_list(metadata, "tokenizer.ggml.token_type", (int,), size)
    if types is None:
        return np.full(size, TokenType.NORMAL, np.int64)
    numbers = np.array(types)
    known = (numbers >= 0) & (numbers <= max(TokenType))
    return np.where(known, numbers, TokenType.UNDEFINED).astype(np.int64)


def _special_id(metadata: Mapping[str, Any], name: str, size: int, default: int | None = None) -> int | None:
    key = f"tokenizer.ggml.{name}_token_id"
    value = read(metadata, key, int)
    if value is None:
        return default if default is not None and default < size else None
    if not 0 <= value < size:
        raise ModelFileError(f"{key} is {value}, but the vocabulary has {size} tokens")
    return value


def _end_ids(
    metadata: Mapping[str, Any],
    tokens: list[str],
    ids: Mapping[str, int],
    types: npt.NDArray[np.int64],
    eos: int | None,
) -> frozenset[int]:
    """Every token that ends a generation; tokens known by name become control tokens in `types`."""
    size = len(tokens)
    ends = {eos, _special_id(metadata, "eot", size), _special_id(metadata, "eom", size)}
    for part, names in _INFILL_NAMES.items():
        token = _special_id(metadata, f"fim_{part}", size)
        if token is None:
            token = next((ids[name] for name in names if name in ids), None)
            if token is not None:
                types[token] = TokenType.CONTROL
        if part in _INFILL_ENDS:
            ends.add(token)
    for name in _END_NAMES:
        if name in ids:
            ends.add(ids[name])
            types[ids[name]] = TokenType.CONTROL
    named = {tokens[token] for token in ends if token is not None}
    # two families write <|end|> after each part of a reply and end the reply with another token
    if {"<|return|>", "<|call|>"} <= named or (named & {"<|call|>", "<|calls|>"} and "<|flush|>" in named):
        end = ids.get("<|end|>")
        ends.discard(end)
        if end is not None:
            types[end] = TokenType.USER_DEFINED
    return frozenset(token for token in ends if token is not None)
