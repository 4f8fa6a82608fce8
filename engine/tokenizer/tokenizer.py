"""The tokenizer of a GGUF file: token ids for text, and text for token ids."""

from collections.abc import Iterable, Mapping
from typing import Any

from tokenizers import AddedToken
from tokenizers import Tokenizer as Backend
from tokenizers.normalizers import Replace, Sequence

from engine.errors import ModelFileError, RequestError
from engine.printable import quoted
from engine.tokenizer.bpe import byte_pair_codec
from engine.tokenizer.chat_template import ChatTemplate
from engine.tokenizer.codec import Codec
from engine.tokenizer.metadata import read, require
from engine.tokenizer.sentencepiece import sentencepiece_codec
from engine.tokenizer.vocabulary import TokenType, Vocabulary
from engine.types import QUOTE

_FAMILIES = {"gpt2": byte_pair_codec, "llama": sentencepiece_codec}

_CHARACTERS = 8
"""Characters of a token that are tried first; English has four or five."""
_MARGIN = 64
"""Tokens behind a cut that may be others than in the whole text."""
_OTHER_TOKENS = {"unk": "unknown", "pad": "padding", "sep": "seperator", "cls": "cls", "mask": "mask"}
"""Variables of chat templates, and what GGUF calls the tokens."""
_HIDDEN = (TokenType.CONTROL, TokenType.UNKNOWN)
"""Shown only when special tokens are rendered, and found in text only when special tokens are parsed."""


class Tokenizer:
    """Encodes and decodes as llama.cpp does with the same file. Immutable; all methods are thread-safe.

    `end_ids` holds every token that ends a generation: those that the file names (eos, eot, eom), the
    well-known names, and the infill tokens for padding, repository and file. As in llama.cpp a
    well-known name is a control token whatever type the file gives it.

    `add_bos` and `add_space_prefix` are the file's rules, which `encode` follows. `add_eos` is told
    but not followed: an end token in a prompt to continue is never wanted.

    `chat_template` is None only if the file has none; `fallback_chat_template` then has another.
    """

    vocab_size: int
    bos_id: int | None
    eos_id: int | None
    end_ids: frozenset[int]
    add_bos: bool
    add_eos: bool
    add_space_prefix: bool
    chat_template: ChatTemplate | None
    control_names: tuple[str, ...]
    """Tokens that are found in text only where special ones are parsed."""

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> "Tokenizer":
        """Build the tokenizer that the keys `tokenizer.*` of a GGUF file describe.

        A chat template that does not compile fails when it is used. Everything else that is missing,
        contradictory or of a kind not supported raises ModelFileError, one line.
        """
        family = require(metadata, "tokenizer.ggml.model", str)
        build = _FAMILIES.get(family)
        if build is None:
            known = ", ".join(_FAMILIES)
            raise ModelFileError(f"tokenizer.ggml.model {quoted(family)} is not supported, only {known}")
        vocabulary = Vocabulary.from_metadata(metadata)
        try:
            return cls(vocabulary, build(vocabulary, metadata), metadata)
        except ModelFileError:
            raise
        except Exception as error:
            reason = " ".join(str(error).split())
            raise ModelFileError(f"the file's tokenizer cannot be built: {reason[:200]}") from error

    def __init__(self, vocabulary: Vocabulary, codec: Codec, metadata: Mapping[str, Any]) -> None:
        self.vocab_size = len(vocabulary.tokens)
        self.bos_id = vocabulary.bos_id
        self.eos_id = vocabulary.eos_id
        self.end_ids = vocabulary.end_ids
        self.add_bos = codec.add_bos
        self.add_eos = read(metadata, "tokenizer.ggml.add_eos_token", bool) is True
        self.add_space_prefix = codec.add_space_prefix
        if self.add_bos and self.bos_id is None:
            raise ModelFileError("tokenizer.ggml.add_bos_token is true, but there is no bos_token_id")
        self._vocabulary = vocabulary
        self._to_bytes = codec.to_bytes
        self._hidden = frozenset(vocabulary.of_type(*_HIDDEN))
        # filled as tokens are met: most of a vocabulary never is
        self._pieces: list[bytes | None] = [None] * self.vocab_size

        user = _added(vocabulary, vocabulary.of_type(TokenType.USER_DEFINED), _strips(metadata))
        control = _added(vocabulary, sorted(self._hidden), _strips(metadata))
        # the two share the model; whether specials are parsed is state of the backend, not an argument
        self._plain = _backend(codec, user)
        self._parsing = _backend(codec, user + control)
        self._quoting = _backend(codec, user + control, unmark=True)
        self.control_names = tuple(vocabulary.tokens[token] for token in sorted(self._hidden))

        self.chat_template = ChatTemplate.from_metadata(
            metadata,
            bos_token=self._name(self.bos_id),
            eos_token=self._name(self.eos_id),
            other_tokens={
                f"{name}_token": self._name(token_id)
                for name, key in _OTHER_TOKENS.items()
                if isinstance(token_id := metadata.get(f"tokenizer.ggml.{key}_token_id"), int)
                and 0 <= token_id < self.vocab_size
            },
        )

    def encode(self, text: str, *, parse_special: bool = True, add_bos: bool | None = None) -> list[int]:
        """Token ids of `text`; the interpreter lock is released meanwhile.

        `parse_special` False takes the names of control tokens in the text for plain text, which is
        what text from strangers should be; user-defined tokens are found all the same. Where they are
        parsed, names with a `QUOTE` in them are plain text all the same, and the quotes vanish. `add_bos`
        None follows the file. A BOS that the text begins with is never doubled. Lone surrogates become
        U+FFFD.
        """
        backend = self._plain
        if parse_special:
            backend = self._quoting if QUOTE in text else self._parsing
        # of the library's ways to encode only those of a batch release the interpreter lock
        ids: list[int] = backend.encode_batch_fast([_well_formed(text)], add_special_tokens=False)[0].ids
        if add_bos is None:
            add_bos = self.add_bos
        if add_bos and self.bos_id is not None and ids[:1] != [self.bos_id]:
            ids.insert(0, self.bos_id)
        return ids

    def encode_end(self, text: str, tokens: int, *, add_bos: bool | None = None) -> list[int]:
        """Token ids of `text`, or of its end if the whole has more than `tokens` of them.

        Of a longer text more than `tokens` ids are returned, of which the last `tokens` are those of the
        whole text. The work is bounded by `tokens`. A BOS is put first as in `encode`.
        """
        length = _CHARACTERS * (tokens + _MARGIN)
        while length < len(text):
            ids = self.encode(text[-length:], add_bos=add_bos)
            # The tokens at the cut may be others than in the whole text.
            if len(ids) > tokens + _MARGIN:
                return ids
            length *= 4
        return self.encode(text, add_bos=add_bos)

    def decode(self, ids: Iterable[int], *, render_special: bool = False) -> str:
        """The text of a whole: bytes that are no UTF-8 show as U+FFFD.

        The one leading space that `encode` puts before a text when `add_space_prefix` holds is taken
        away again; `Detokenizer` keeps it, because a continuation is no text of its own.
        Raises RequestError for an id outside the vocabulary.
        """
        raw = b"".join([self.piece(token_id, render_special=render_special) for token_id in ids])
        if self.add_space_prefix:
            raw = raw.removeprefix(b" ")
        return raw.decode(errors="replace")

    def piece(self, token_id: int, *, render_special: bool = False) -> bytes:
        """The bytes that one token adds to the text: none for control tokens unless rendered.

        Raises RequestError for an id outside the vocabulary.
        """
        if not render_special and token_id in self._hidden:
            return b""
        # a negative id would count from the end
        piece = self._pieces[token_id] if 0 <= token_id < self.vocab_size else None
        if piece is None:
            piece = self._pieces[token_id] = self._bytes(self._checked(token_id))
        return piece

    def text(self, token_id: int) -> str:
        """The token's name in the vocabulary. Raises RequestError for an id outside of it."""
        return self._vocabulary.tokens[self._checked(token_id)]

    def is_control(self, token_id: int) -> bool:
        """Whether the token is a control token. Raises RequestError for an id outside the vocabulary."""
        return bool(self._vocabulary.types[self._checked(token_id)] == TokenType.CONTROL)

    def fallback_chat_template(self) -> ChatTemplate:
        """A template for a file without one: ChatML if the vocabulary has its tokens, else Alpaca."""
        return ChatTemplate.fallback(
            self._vocabulary.ids, bos_token=self._name(self.bos_id), eos_token=self._name(self.eos_id)
        )

    def _checked(self, token_id: int) -> int:
        if 0 <= token_id < self.vocab_size:
            return token_id
        raise RequestError(f"token id {token_id} is outside the vocabulary of {self.vocab_size} tokens")

    def _bytes(self, token_id: int) -> bytes:
        token = self._vocabulary.tokens[token_id]
        match self._vocabulary.types[token_id]:
            case TokenType.NORMAL:
                return self._to_bytes(token)
            case TokenType.BYTE:
                return _byte(token)
            case TokenType.CONTROL | TokenType.UNKNOWN | TokenType.USER_DEFINED:
                return token.encode()
            case _:
                return b""

    def _name(self, token_id: int | None) -> str:
        return "" if token_id is None else self._vocabulary.tokens[token_id]


def _byte(token: str) -> bytes:
    """The byte of a token like <0x0A>; the name itself where a file calls something else a byte."""
    try:
        return bytes([int(token[3:5], 16)]) if token.startswith("<0x") else token.encode()
    except ValueError:
        return token.encode()


def _strips(metadata: Mapping[str, Any]) -> bool:
    """Whether special tokens swallow the white space after them: llama.cpp knows Phi-3 by its name."""
    name = (read(metadata, "general.name", str) or "").lower()
    return "phi-3" in name or "phi3" in name


def _added(vocabulary: Vocabulary, ids: list[int], strips: bool) -> list[AddedToken]:
    keep = ("<unk>", "<s>", "<|endoftext|>")
    tokens = vocabulary.tokens
    return [
        AddedToken(tokens[i], normalized=False, special=True, rstrip=strips and tokens[i] not in keep)
        for i in ids
    ]


def _backend(codec: Codec, added: list[AddedToken], *, unmark: bool = False) -> Backend:
    """`unmark`: quotes are taken out when added tokens have been found, before anything else."""
    backend = Backend(codec.model)
    normalizer = codec.normalizer
    if unmark:
        normalizer = Sequence([Replace(QUOTE, ""), *([] if normalizer is None else [normalizer])])
    if normalizer is not None:
        backend.normalizer = normalizer
    if codec.pre_tokenizer is not None:
        backend.pre_tokenizer = codec.pre_tokenizer
    backend.add_special_tokens(added)
    return backend


def _well_formed(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        # JSON lets clients write halves of a pair; two halves that meet are a character
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
