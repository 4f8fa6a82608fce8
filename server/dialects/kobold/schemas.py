"""The wire of the Kobold dialect: what clients send."""

from typing import Annotated, Any

from pydantic import Field

from server.wire.generation_fields import IGNORED as IGNORED_GENERATION_FIELDS
from server.wire.generation_fields import MESSAGES_LIMIT, GenerationFields
from server.wire.lenient import Count, Length, Name, Truth, WireModel
from server.wire.sampler_fields import LEFT_OUT as SAMPLERS_LEFT_OUT
from server.wire.sampler_fields import NOT_YET as SAMPLERS_NOT_YET
from server.wire.sampler_fields import NotYet, empty, field, number

IDS_LIMIT = 65_535
"""Most token ids that are turned into text at once, as in KoboldCpp."""


class GenerateBody(GenerationFields):
    """Body of the two generate endpoints."""

    prompt: str = field("", "the text to continue")
    memory: str = field("", "text in front of the prompt, kept whole when the prompt is cut to fit")
    logprobs: Truth = field(False, "report the probabilities of the tokens")
    replace_instruct_placeholders: Truth = field(
        True, "put the model's own tags for {{[INPUT]}}, {{[OUTPUT]}} and {{[SYSTEM]}}"
    )
    reasoning_effort: Name = field("", "none, minimal, low or medium bound the thoughts of a thinking model")
    thinking_budget_tokens: Count = field(-1, "tokens of thought; used without reasoning_effort", least=-1)

    images: Any = field(None, "not supported: no model that sees is loaded")
    audio: Any = field(None, "not supported: no model that hears is loaded")
    n: Any = field(None, "1: this endpoint makes one text")
    quiet: Any = field(None, "ignored")


class BasicBody(GenerateBody):
    """Body of `/request`, the oldest endpoint."""

    text: str = field("", "the text to continue")
    max: Length = field(180, "tokens to make; -1: until the context is full", least=-2)
    top_k: Count = field(120, "keeps the so many likeliest tokens; 0 keeps all", least=0)


class TokenCountBody(WireModel):
    """Body of `/api/extra/tokencount` and `/api/extra/tokenize`."""

    prompt: str = field("", "the text to take apart")
    messages: Annotated[list[dict[str, Any]], Field(max_length=MESSAGES_LIMIT)] = field(
        [], "a chat, used when there is no prompt"
    )
    special: Truth = field(True, "put the token that begins texts in front, where the model wants one")


class DetokenizeBody(WireModel):
    """Body of `/api/extra/detokenize`."""

    ids: Annotated[list[Annotated[int, Field(strict=True)]], Field(max_length=IDS_LIMIT)] = field(
        [], "token ids"
    )
    special: Truth = field(True, "show special tokens")


class KeyBody(WireModel):
    """Body of abort, check and last_logprobs: which generation is meant."""

    genkey: Name = field("", "the genkey of the request; without one, the caller's keyless requests")


class SchemaBody(WireModel):
    """Body of `/api/extra/json_to_grammar`; the bare schema is taken as well."""

    schema_: Any = Field(default=None, alias="schema", description="a JSON schema")


class MediaBody(WireModel):
    """Body of the endpoints for models that are not loaded: any object, which is not looked at."""


class SlotBody(WireModel):
    """Body of `/api/extra/data/load`."""

    slot: Count = field(0, "number of the slot", least=0)


class SaveBody(SlotBody):
    """Body of `/api/extra/data/save`."""

    title: str = field("", "what people read in the list")
    format: str = field("", "what the data is, in the client's words")
    data: str = field("", "what to keep; nothing empties the slot")


def _single(value: Any) -> bool:
    return number(value) in (None, 0.0, 1.0)


NOT_YET: dict[str, NotYet] = SAMPLERS_NOT_YET | {
    "n": NotYet("this endpoint makes one text, as KoboldCpp's does", _single),
}

LEFT_OUT: dict[str, NotYet] = SAMPLERS_LEFT_OUT | {
    "images": NotYet("no model that sees is loaded, and the model continues the text alone", empty),
    "audio": NotYet("no model that hears is loaded, and the model continues the text alone", empty),
}

IGNORED: dict[str, str] = IGNORED_GENERATION_FIELDS | {
    "quiet": "what is logged is the server's choice, and prompts are not"
}
