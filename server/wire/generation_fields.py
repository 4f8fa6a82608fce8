"""The fields of a generation that every dialect understands under KoboldCpp's names, samplers included.

`to_request` is their only reader.
"""

from typing import Any

from engine.errors import RequestError
from engine.types import GbnfGrammar, GenerationRequest, Grammar, JsonGrammar, Prompt
from server.wire.lenient import Count, Length, Name, Texts, Truth
from server.wire.sampler_fields import SamplerFields, field, to_sampling

STOP_STRINGS = 256
"""More stop strings than this are cut off, as in later KoboldCpp."""

PHRASES = 768
"""More banned phrases than this are cut off, as in later KoboldCpp."""

MESSAGES_LIMIT = 1 << 15
"""Most messages of a chat: more than fit in any model's context, and as many as are read in a second."""

TEXT_LENGTH = 1_000
"""Characters of the longest stop string or banned phrase."""

TEXTS_LENGTH = 1 << 16
"""Characters of all stop strings of a request together, and of all its banned phrases."""

ALTERNATIVES = 20
"""Most alternatives reported for a token."""


class GenerationFields(SamplerFields):
    """What bounds the text, beside the choice of its tokens."""

    max_length: Length | None = field(None, "tokens to make; -1: until the context is full", least=-2)
    n_predict: Length | None = field(None, "another name of max_length, llama.cpp's", least=-2)
    max_context_length: Count | None = field(
        None, "tokens that prompt and reply may span; never more than the server's context", least=2
    )
    stop_sequence: Texts = field((), "strings that end the text")
    trim_stop: Truth = field(True, "leave the stop string out of the text")
    ban_eos_token: Truth | None = field(None, "never let the model end the text by itself")
    use_default_badwordsids: Truth = field(False, "older name of ban_eos_token")
    bypass_eos: Truth = field(False, "let the model make its end token, hide it and go on")
    render_special: Truth = field(False, "show special tokens as text")
    grammar: str = field("", "GBNF grammar, or a JSON schema as text, that the text must follow")
    grammar_retain_state: Any = field(None, "ignored: a grammar begins with the text that it binds")
    banned_tokens: Texts = field((), "phrases that never appear, in whatever case")
    banned_strings: Texts = field((), "another name of banned_tokens, which goes before it")
    theta: Truth | None = field(None, "whether theta counts for this text; absent: as the server has it")
    truncation: Name = field(
        "auto",
        "auto: what the context cannot hold is left out; disabled: a prompt that is too long is refused",
    )
    genkey: Name = field("", "names the request, for abort and check")


IGNORED: dict[str, str] = {
    "grammar_retain_state": "a grammar begins with the text that it binds",
}


def said_length(fields: GenerationFields, *own: int | None) -> int | None:
    """The first length that was said: the dialect's `own`, KoboldCpp's, llama.cpp's; None: none was."""
    lengths = (*own, fields.max_length, fields.n_predict)
    return next((length for length in lengths if length is not None), None)


def to_request(
    fields: GenerationFields,
    request_id: str,
    prompt: Prompt,
    *,
    max_tokens: int,
    stop: tuple[str, ...] | None = None,
    seed: int | None = None,
    logprobs: int | None = None,
    final_logprobs: bool = False,
    grammar: Grammar | None = None,
) -> GenerationRequest:
    """The engine's request. `stop`, `seed` and `grammar` are the dialect's own; None leaves Kobold's.

    Raises `RequestError` for stop strings and banned phrases that are too long to look for in each token.
    """
    if seed is not None:
        fields = fields.model_copy(update={"sampler_seed": seed})
    ban_eos = fields.use_default_badwordsids if fields.ban_eos_token is None else fields.ban_eos_token
    context = fields.max_context_length
    phrases = (fields.banned_tokens or fields.banned_strings)[:PHRASES]
    stop = (fields.stop_sequence if stop is None else stop)[:STOP_STRINGS]
    _check_texts(stop, "stop strings")
    _check_texts(phrases, "banned phrases")
    return GenerationRequest(
        request_id=request_id,
        prompt=prompt,
        max_tokens=max_tokens,
        sampling=to_sampling(fields),
        context_length=context if context is not None and context > 0 else None,
        stop=stop,
        trim_stop=fields.trim_stop,
        ban_eos=ban_eos and not fields.bypass_eos,
        ignore_eos=fields.bypass_eos,
        render_special=fields.render_special,
        grammar=to_grammar(fields.grammar) if grammar is None else grammar,
        banned_phrases=phrases,
        logprobs=None if logprobs is None else min(logprobs, ALTERNATIVES),
        final_logprobs=final_logprobs,
        theta=fields.theta,
        whole_only=fields.truncation == "disabled",
    )


def _check_texts(texts: tuple[str, ...], meaning: str) -> None:
    if max(map(len, texts), default=0) > TEXT_LENGTH:
        raise RequestError(f"{meaning} have at most {TEXT_LENGTH} characters each")
    if sum(map(len, texts)) > TEXTS_LENGTH:
        raise RequestError(f"all {meaning} together have at most {TEXTS_LENGTH} characters")


def to_grammar(text: str) -> Grammar | None:
    """The grammar of the field `grammar`: blanks are none, and text that begins as a JSON object is a schema.

    No GBNF begins with a brace.
    """
    if not text.strip():
        return None
    return JsonGrammar(text) if text.lstrip().startswith("{") else GbnfGrammar(text)
