"""Byte pair encoding over bytes, as GPT-2 began it: `tokenizer.ggml.model` = "gpt2"."""

from collections.abc import Mapping
from typing import Any

from tokenizers import Regex
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split

from engine.errors import ModelFileError
from engine.tokenizer.codec import Codec
from engine.tokenizer.metadata import read, read_list
from engine.tokenizer.pretokenizers import pre_tokenizer
from engine.tokenizer.vocabulary import Vocabulary

MAX_MERGES = 1 << 21


def byte_pair_codec(vocabulary: Vocabulary, metadata: Mapping[str, Any]) -> Codec:
    """Build the codec from the file's merges. Raises ModelFileError."""
    pre = pre_tokenizer(read(metadata, "tokenizer.ggml.pre", str))
    add_bos = read(metadata, "tokenizer.ggml.add_bos_token", bool)
    splits = [Split(Regex(pattern), "isolated") for pattern in pre.patterns]
    return Codec(
        model=BPE(vocabulary.ids, _merges(vocabulary, metadata), ignore_merges=pre.ignore_merges),
        normalizer=None,
        pre_tokenizer=Sequence([*splits, ByteLevel(add_prefix_space=False, use_regex=False)]),
        to_bytes=_to_bytes,
        add_bos=pre.add_bos if add_bos is None else add_bos,
        # llama.cpp reads the key for this family too, and then never looks at it
        add_space_prefix=False,
    )


def _merges(vocabulary: Vocabulary, metadata: Mapping[str, Any]) -> list[tuple[str, str]]:
    key = "tokenizer.ggml.merges"
    lines = read_list(metadata, key, (str,))
    if lines is None:
        raise ModelFileError(f"{key} is missing: the file has no usable tokenizer")
    if len(lines) > MAX_MERGES:
        raise ModelFileError(f"{key} has {len(lines)} entries; at most {MAX_MERGES} are accepted")
    ids = vocabulary.ids
    merges: dict[tuple[str, str], None] = {}
    for line in lines:
        # the left part may itself begin with a space
        cut = line.find(" ", 1)
        left, right = line[:cut], line[cut + 1 :]
        if cut < 0 or left not in ids or right not in ids or left + right not in ids:
            raise ModelFileError(f"{key} has an entry that joins no two tokens to a third: {line[:80]!r}")
        # of two equal pairs the first counts
        merges.setdefault((left, right))
    return list(merges)


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
