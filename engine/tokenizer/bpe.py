"""Byte pair encoding over bytes, as GPT-2 began it: `tokenizer.ggml.model` = "gpt2"."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from tokenizers import Regex
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Split
from tokenizers.pre_tokenizers import Sequence as InTurn

from engine.errors import ModelFileError
from engine.gguf import StringArray
from engine.tokenizer.codec import Codec
from engine.tokenizer.metadata import read, read_list
from engine.tokenizer.pretokenizers import pre_tokenizer
from engine.tokenizer.vocabulary import TOKENS, Vocabulary

MAX_MERGES = 1 << 21
_MERGES = "tokenizer.ggml.merges"


def byte_pair_codec(vocabulary: Vocabulary, metadata: Mapping[str, Any]) -> Codec:
    """Build the codec from the file's merges. Raises ModelFileError."""
    pre = pre_tokenizer(read(metadata, "tokenizer.ggml.pre", str))
    add_bos = read(metadata, "tokenizer.ggml.add_bos_token", bool)
    splits = [Split(Regex(pattern), "isolated") for pattern in pre.patterns]
    model = _model(vocabulary, metadata, pre.ignore_merges)
    return Codec(
        model=model,
        normalizer=None,
        pre_tokenizer=InTurn([*splits, ByteLevel(add_prefix_space=False, use_regex=False)]),
        to_bytes=_to_bytes,
        add_bos=pre.add_bos if add_bos is None else add_bos,
        # llama.cpp reads the key for this family too, and then never looks at it
        add_space_prefix=False,
    )


def _merge_lines(metadata: Mapping[str, Any]) -> Sequence[str]:
    lines = read_list(metadata, _MERGES, (str,))
    if lines is None:
        raise ModelFileError(f"{_MERGES} is missing: the file has no usable tokenizer")
    if len(lines) > MAX_MERGES:
        raise ModelFileError(f"{_MERGES} has {len(lines)} entries; at most {MAX_MERGES} are accepted")
    return lines


def _model(vocabulary: Vocabulary, metadata: Mapping[str, Any], ignore_merges: bool) -> BPE:
    lines, ids = _merge_lines(metadata), vocabulary.ids
    merges = _merges(vocabulary.tokens, metadata[TOKENS], lines)
    if merges is not None:
        with suppress(Exception):  # the library looks for the token that each merge gives
            return BPE(ids, merges, ignore_merges=ignore_merges)
    bad = next((line for line in lines if not _joins(line, ids)), "")
    raise ModelFileError(f"{_MERGES} has an entry that joins no two tokens to a third: {bad[:80]!r}")


def _merges(names: list[str], tokens: Sequence[str], lines: Sequence[str]) -> list[tuple[str, str]] | None:
    """The two parts of each merge, of equal ones once, for the first counts; None if a line has no two parts.

    `names`: of the tokens as the file has them.
    """
    if isinstance(tokens, StringArray) and isinstance(lines, StringArray):
        found = lines.merged_from(tokens)
        if found is not None:
            named = np.array(names, object)
            left, right = (named[side].tolist() for side in found)
            return list(zip(left, right, strict=True))
    cuts = [_cut(line) for line in lines]
    if min(cuts, default=1) < 0:
        return None
    return list(dict.fromkeys((line[:cut], line[cut + 1 :]) for line, cut in zip(lines, cuts, strict=True)))


def _cut(line: str) -> int:
    """Where a merge's parts meet; the left one may itself begin with a space."""
    return line.find(" ", 1)


def _joins(line: str, ids: Mapping[str, int]) -> bool:
    left, right = line[: _cut(line)], line[_cut(line) + 1 :]
    return _cut(line) > 0 and left in ids and right in ids and left + right in ids


def _byte_characters() -> dict[str, int]:
    """The printable character that stands for each byte in token names."""
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


_BYTES = _byte_characters()


def _to_bytes(token: str) -> bytes:
    try:
        return bytes(map(_BYTES.__getitem__, token))
    except KeyError:
        # a name outside the alphabet of bytes can only mean itself
        return token.encode()
