"""Text from a growing sequence of tokens."""

import codecs

from engine.tokenizer.tokenizer import Tokenizer

_utf8 = codecs.getincrementaldecoder("utf-8")

DecoderState = tuple[bytes, int]
"""Bytes of a character that lacks its end, and the codec's own flag."""


class Detokenizer:
    """Gives the text that each token completes; one per sequence, not thread-safe.

    Everything pushed, joined, is the bytes of all tokens decoded at once with U+FFFD for what is no
    UTF-8, except that a character which lacks its end is held back. A leading space is kept.
    """

    def __init__(self, tokenizer: Tokenizer, *, render_special: bool = False) -> None:
        self._piece = tokenizer.piece
        self._render_special = render_special
        self._decoder = _utf8("replace")

    @property
    def state(self) -> DecoderState:
        """Where the text stands, for `restore`."""
        return self._decoder.getstate()

    def restore(self, state: DecoderState) -> None:
        """Go back to an earlier state: what was pushed since is as if it had never come."""
        self._decoder.setstate(state)

    def push(self, token_id: int) -> str:
        """The text that is now whole, maybe none. Raises RequestError for an id outside the vocabulary."""
        return self._decoder.decode(self._piece(token_id, render_special=self._render_special))

    def flush(self) -> str:
        """End the sequence: an unfinished character is dropped, so there is never text left to tell."""
        self._decoder.reset()
        return ""
