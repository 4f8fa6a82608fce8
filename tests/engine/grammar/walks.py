"""Random texts under a grammar's masks, and given texts through them."""

from collections.abc import Iterable

import numpy as np

from engine.grammar import GrammarCompiler, GrammarState
from engine.tokenizer import Tokenizer
from engine.types import Grammar
from tests.engine.tokenizer.vocabularies import CONTROL, Metadata, byte_pairs, sentence_pieces

BYTE_PAIRS = Tokenizer.from_metadata(byte_pairs())
"""All bytes, `he`, `ll`, `hell`, ` w`, and `<tool>` in one; <|im_end|> ends a text."""

SENTENCE_PIECES = Tokenizer.from_metadata(sentence_pieces())
"""All bytes and a few pieces, some with the text of a byte."""

WITHOUT_PREFIX = Tokenizer.from_metadata(sentence_pieces(add_space_prefix=False))
"""The same pieces, for texts that do not begin with a space."""

COMPILERS = {
    id(tokenizer): GrammarCompiler(tokenizer) for tokenizer in (BYTE_PAIRS, SENTENCE_PIECES, WITHOUT_PREFIX)
}


def with_control(*names: str) -> Tokenizer:
    """The byte pairs, with these control tokens at the end of the vocabulary."""
    metadata: Metadata = byte_pairs()
    tokens, types = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
    metadata["tokenizer.ggml.tokens"] = [*tokens, *names]
    metadata["tokenizer.ggml.token_type"] = [*types, *[CONTROL] * len(names)]
    return Tokenizer.from_metadata(metadata)


def allowed(state: GrammarState, tokenizer: Tokenizer) -> set[int]:
    """The ids that the mask allows; fails for bits outside the vocabulary."""
    mask = state.mask()
    assert mask.dtype == np.uint32
    assert mask.shape == (-(-tokenizer.vocab_size // 32),)
    ids = set(np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little")).tolist())
    assert all(token_id < tokenizer.vocab_size for token_id in ids)
    return ids


def walk(
    compiler: GrammarCompiler,
    tokenizer: Tokenizer,
    grammar: Grammar,
    seed: int,
    *,
    steps: int = 200,
    end: float = 0.3,
) -> bytes | None:
    """The text of random allowed tokens, which ends with that chance where it may; None after `steps`."""
    rng = np.random.default_rng(seed)
    state = compiler.start(grammar)
    text = b""
    for _ in range(steps):
        ids = allowed(state, tokenizer)
        ends, others = sorted(ids & tokenizer.end_ids), sorted(ids - tokenizer.end_ids)
        assert ends or others
        # all end tokens or none
        assert set(ends) in (set(), tokenizer.end_ids)
        if ends and (not others or rng.random() < end):
            state.accept(ends[0])
            assert state.finished
            return text
        assert not state.finished
        token_id = others[rng.integers(len(others))]
        state.accept(token_id)
        piece = tokenizer.piece(token_id, render_special=True)
        assert piece
        text += piece
    return None


def texts(
    tokenizer: Tokenizer, grammar: Grammar, *, count: int = 30, compiler: GrammarCompiler | None = None
) -> list[str]:
    """Random texts that have ended; fails if hardly any do, or if one is not UTF-8."""
    compiler = compiler or COMPILERS[id(tokenizer)]
    found = [walk(compiler, tokenizer, grammar, seed) for seed in range(count)]
    ended = [text.decode() for text in found if text is not None]
    assert len(ended) >= count // 4
    return ended


def follow(state: GrammarState, tokenizer: Tokenizer, ids: Iterable[int]) -> int | None:
    """Accept the ids as far as the mask allows them: the place of the first that is refused, else None."""
    for place, token_id in enumerate(ids):
        if token_id not in allowed(state, tokenizer):
            return place
        state.accept(token_id)
    return None


def admits(
    tokenizer: Tokenizer, grammar: Grammar, text: str, compiler: GrammarCompiler | None = None
) -> bool:
    """Whether the whole text is admitted, in the tokens that the tokenizer makes of it."""
    state = (compiler or COMPILERS[id(tokenizer)]).start(grammar)
    ids = tokenizer.encode(text, add_bos=False)
    return follow(state, tokenizer, ids) is None and tokenizer.end_ids <= allowed(state, tokenizer)
