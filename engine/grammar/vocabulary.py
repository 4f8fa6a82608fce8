"""A tokenizer in the form in which llguidance asks for one."""

from functools import cached_property

from engine.tokenizer import Tokenizer

MAX_TOKEN_BYTES = 1000
"""llguidance's tree of tokens is at most 1,024 levels deep. Longer tokens match no grammar."""

_MARKER = b"\xff"
"""llguidance's sign for special tokens; no UTF-8 text holds this byte."""

_BEFORE = "\n"
"""Put before a text whose beginning the tokenizer would take for the beginning of a word."""


class LibraryVocabulary:
    """What llguidance calls a tokenizer wrapper: bytes by token id, and a function from text to token ids.

    Special are the tokens that show no text (control tokens, the unknown token) and those that end a
    generation. Tokens without text, and those too long for llguidance, are empty here: they match nothing.
    So are all but one of those with the same text, as SentencePiece vocabularies have them; `twins` maps
    each of the others to the one.
    """

    is_tokenizer_wrapper = True
    bos_token_id: int | None = None

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.eos_token_id = min(tokenizer.end_ids, default=None)
        self.tokens: list[bytes] = []
        self.special_token_ids: list[int] = []
        self.twins: dict[int, int] = {}
        known: dict[bytes, int] = {}
        for token_id in range(tokenizer.vocab_size):
            piece = tokenizer.piece(token_id)
            ends = token_id in tokenizer.end_ids
            if ends or (not piece and tokenizer.piece(token_id, render_special=True)):
                self.special_token_ids.append(token_id)
                self.tokens.append(tokenizer.text(token_id).encode()[:MAX_TOKEN_BYTES])
                continue
            if len(piece) > MAX_TOKEN_BYTES or piece.startswith(_MARKER):
                piece = b""
            if piece:
                # the last one: byte tokens come before the pieces that text is encoded with
                twin = known.get(piece)
                if twin is not None:
                    self.tokens[twin] = b""
                    self.twins[twin] = token_id
                known[piece] = token_id
            self.tokens.append(piece)
        for token_id, twin in self.twins.items():
            # of three with the same text the first points to the second
            self.twins[token_id] = known[tokenizer.piece(twin)]

    def __call__(self, text: str) -> list[int]:
        """Ids whose bytes are exactly those of `text`: the tokenizer's, or else the longest that fit.

        llguidance forces these where the grammar leaves no choice. It does not survive an exception.
        """
        ids = self._canonical(text)
        return self._longest(text.encode()) if ids is None else ids

    def _canonical(self, text: str) -> list[int] | None:
        """The tokenizer's ids, None if something besides `text` is in them."""
        before = _BEFORE if self._tokenizer.add_space_prefix else ""
        ids = self._tokenizer.encode(before + text, parse_special=False, add_bos=False)
        pieces = [self._tokenizer.piece(token_id) for token_id in ids]
        skipped = 0
        while before and b"".join(pieces[:skipped]).lstrip(b" ") != before.encode():
            skipped += 1
            if skipped > len(pieces):
                return None
        if b"".join(pieces[skipped:]) != text.encode():
            return None
        return [self.twins.get(token_id, token_id) for token_id in ids[skipped:]]

    def _longest(self, raw: bytes) -> list[int]:
        ids = []
        at = 0
        while at < len(raw):
            for size in range(min(self._longest_token, len(raw) - at), 0, -1):
                token_id = self._by_bytes.get(raw[at : at + size])
                if token_id is not None:
                    ids.append(token_id)
                    at += size
                    break
            else:
                # no token can write what the grammar demands: all that is left is to end the text
                return ids if self.eos_token_id is None else [*ids, self.eos_token_id]
        return ids

    @cached_property
    def _by_bytes(self) -> dict[bytes, int]:
        special = set(self.special_token_ids)
        return {piece: i for i, piece in enumerate(self.tokens) if piece and i not in special}

    @cached_property
    def _longest_token(self) -> int:
        return max(map(len, self._by_bytes), default=0)
