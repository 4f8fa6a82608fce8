"""SentencePiece style with scores and byte fallback: `tokenizer.ggml.model` = "llama".

llama.cpp joins, again and again, the two neighbours whose union is the token of the highest score,
the leftmost where scores are equal. That is byte pair encoding with a merge for every way to cut a
token in two tokens, ranked by the token's score. Two occurrences of one token that are cut
differently and overlap can only be runs of a repeated text, which grow from the left: so the longer
left part ranks first. Different tokens of equal score join in the order of their ids, where
llama.cpp takes the leftmost: SentencePiece gives every piece its own score.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers.models import BPE
from tokenizers.normalizers import Normalizer, Prepend, Replace, Sequence

from engine.errors import ModelFileError
from engine.tokenizer.codec import Codec
from engine.tokenizer.metadata import read
from engine.tokenizer.vocabulary import Vocabulary

SPACE = "▁"

_BASE = 0x9E3779B97F4A7C15
"""Any odd number will do, so that it has an inverse."""
_FILTER_BITS = 24
_FILTER_SHIFT = np.uint64(64 - _FILTER_BITS)


def sentencepiece_codec(vocabulary: Vocabulary, metadata: Mapping[str, Any]) -> Codec:
    """Build the codec from the tokens' scores. Raises ModelFileError."""
    if not vocabulary.scores:
        raise ModelFileError("tokenizer.ggml.scores is missing: the file has no usable tokenizer")
    add_bos = read(metadata, "tokenizer.ggml.add_bos_token", bool)
    add_space_prefix = read(metadata, "tokenizer.ggml.add_space_prefix", bool) is not False
    unknown = vocabulary.unknown_id
    escape: Normalizer = Replace(" ", SPACE)
    return Codec(
        model=BPE(
            vocabulary.ids,
            _merges(vocabulary),
            unk_token=None if unknown is None else vocabulary.tokens[unknown],
            byte_fallback=True,
        ),
        # the prefix goes before every stretch of text between special tokens, as in llama.cpp
        normalizer=Sequence([Prepend(SPACE), escape]) if add_space_prefix else escape,
        pre_tokenizer=None,
        to_bytes=_to_bytes,
        add_bos=add_bos is not False,
        add_space_prefix=add_space_prefix,
    )


def _merges(vocabulary: Vocabulary) -> list[tuple[str, str]]:
    """Every way to cut a token in two tokens, best token first, longest left part first.

    Half a million of them in a vocabulary of 262 144: so candidates are found by rolling hashes over
    all tokens at once, and only those are compared as text.
    """
    tokens = vocabulary.tokens
    count = len(tokens)
    characters = np.frombuffer("".join(tokens).encode("utf-32-le"), np.uint32)
    lengths = np.fromiter(map(len, tokens), np.int64, count)
    ends = np.cumsum(lengths)
    starts = ends - lengths

    # the hash of [a, b) is the sum of character * BASE**(position - a + 1), modulo 2**64
    powers = _powers(_BASE, characters.size)
    sums = np.zeros(characters.size + 1, np.uint64)
    np.cumsum(characters * powers[1:], out=sums[1:])
    unshift = _powers(pow(_BASE, -1, 1 << 64), characters.size)

    def hashes(begin: npt.NDArray[np.int64], end: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
        difference: npt.NDArray[np.uint64] = sums[end] - sums[begin]
        return difference * unshift[begin]

    token_hashes = hashes(starts, ends)
    filled = np.zeros(1 << _FILTER_BITS, np.bool_)
    filled[token_hashes >> _FILTER_SHIFT] = True

    # every position begins the right part of a cut; descending, so that of the cuts of one token the
    # one with the longest left part comes first
    owners = np.repeat(np.arange(count), lengths)[::-1]
    cuts = np.arange(characters.size)[::-1]
    lefts, rights = hashes(starts[owners], cuts), hashes(cuts, ends[owners])
    likely = filled[lefts >> _FILTER_SHIFT] & filled[rights >> _FILTER_SHIFT]
    owners, lefts, rights = owners[likely], lefts[likely], rights[likely]

    by_score = np.lexsort((owners, -np.asarray(vocabulary.scores)[owners]))
    by_hash = np.argsort(token_hashes)
    table = token_hashes[by_hash]

    def nearest(wanted: npt.NDArray[np.uint64]) -> list[int]:
        """The ids of the tokens with these hashes, or of any other where there is none."""
        places = np.minimum(np.searchsorted(table, wanted), count - 1)
        ids: list[int] = by_hash[places].tolist()
        return ids

    return [
        (tokens[left], tokens[right])
        for owner, left, right in zip(
            owners[by_score].tolist(), nearest(lefts[by_score]), nearest(rights[by_score]), strict=True
        )
        if tokens[left] + tokens[right] == tokens[owner]
    ]


def _powers(base: int, highest: int) -> npt.NDArray[np.uint64]:
    """base**0 to base**highest, modulo 2**64."""
    powers = np.full(highest + 1, base, np.uint64)
    powers[0] = 1
    return np.multiply.accumulate(powers)


def _to_bytes(token: str) -> bytes:
    return token.replace(SPACE, " ").encode()
