"""Byte pair encoding over bytes, as GPT-2 began it: `tokenizer.ggml.model` = "gpt2"."""

from collections.abc import Mapping, Sequence
from typing import Any

from tokenizers import Regex
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Split
from tokenizers.pre_tokenizers import Sequence as InTurn

from engine.errors import ModelFileError
from engine.gguf import StringArray
from engine.tokenizer.codec import Codec
from engine.tokenizer.metadata import read, read_list
from engine.tokenizer.pretokenizers import pre_tokenizer
from engine.tokenizer.vocabulary import Vocabulary

MAX_MERGES = 1 << 21
_MERGES = "tokenizer.ggml.merges"


def byte_pair_codec(vocabulary: Vocabulary, metadata: Mapping[str, Any]) -> Codec:
    """Build the codec from the file's merges. Raises ModelFileError."""
    pre = pre_tokenizer(read(metadata, "tokenizer.ggml.pre", str))
    add_bos = read(metadata, "tokenizer.ggml.add_bos_token", bool)
    splits = [Split(Regex(pattern), "isolated") for pattern in pre.patterns]
    model = _model(vocabulary.ids, _merge_lines(metadata), pre.ignore_merges)
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


def _model(ids: dict[str, int], lines: Sequence[str], ignore_merges: bool) -> BPE:
    merges = lines.halves() if isinstance(lines, StringArray) else None
    if merges is None:
        merges = [(line[:cut], line[cut + 1 :]) for line in lines if (cut := _cut(line)) > 0]
    whole = len(merges) == len(lines)
    try:
        # Of two equal ones the first counts.
        model = BPE(ids, list(dict.fromkeys(merges)), ignore_merges=ignore_merges)
    except Exception:
        model = None
    # The library looks for the three tokens of each merge itself; only a fault is worth a look of ours.
    if model is None or not whole:
        bad = next((line for line in lines if not _joins(line, ids)), "")
        raise ModelFileError(f"{_MERGES} has an entry that joins no two tokens to a third: {bad[:80]!r}")
    return model


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
