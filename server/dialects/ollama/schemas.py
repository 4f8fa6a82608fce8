"""The wire of the Ollama dialect: what clients send."""

from typing import Annotated, Any, Literal

from pydantic import Field

from server.wire.generation_fields import IGNORED as IGNORED_GENERATION_FIELDS
from server.wire.generation_fields import MESSAGES_LIMIT, GenerationFields
from server.wire.lenient import Count, Length, Name, Natural, Real, Seed, Texts, Truth, WireModel
from server.wire.sampler_fields import NOT_YET as SAMPLERS_NOT_YET
from server.wire.sampler_fields import NotYet, empty, field
from server.wire.tools import Declared

TokenId = Annotated[int, Field(strict=True, ge=0)]
CONTEXT_IDS = 1 << 20
"""Most token ids of a `context`; more than any model's context holds."""


class Options(GenerationFields):
    """How the text is made. Ollama's names go before Kobold's where both are given."""

    num_predict: Length | None = field(None, "tokens to make; -1: until the context is full", least=-2)
    num_ctx: Count | None = field(None, "tokens that prompt and reply may span", least=2)
    stop: Texts | None = field(None, "strings that end the text")
    seed: Seed = field(None, "seed of the random numbers; below 1 a fresh one")
    repeat_last_n: Count | None = field(
        None, "tokens that the penalties see; 0 switches them off, below 0 they see all", least=-1
    )
    tfs_z: Real | None = field(None, "tail-free sampling; 1 is off", least=0, most=1)
    typical_p: Real | None = field(None, "locally typical sampling; 1 is off", least=0, most=1)

    num_keep: Any = field(None, "ignored")
    penalize_newline: Any = field(None, "ignored")
    num_batch: Any = field(None, "ignored")
    num_gpu: Any = field(None, "ignored")
    main_gpu: Any = field(None, "ignored")
    num_thread: Any = field(None, "ignored")
    numa: Any = field(None, "ignored")
    low_vram: Any = field(None, "ignored")
    use_mmap: Any = field(None, "ignored")
    use_mlock: Any = field(None, "ignored")
    f16_kv: Any = field(None, "ignored")
    vocab_only: Any = field(None, "ignored")
    logits_all: Any = field(None, "ignored")
    embedding_only: Any = field(None, "ignored")


class SharedBody(WireModel):
    """What generate and chat have in common."""

    options: Options = field(Options(), "how the text is made", shown={})
    format: str | dict[str, Any] = field("", '"json", or a JSON schema that the reply follows')
    think: bool | str | None = field(None, "whether the model thinks first, or how much: low, medium, high")
    stream: Truth = field(True, "send the reply line by line while it is made")
    logprobs: Truth = field(False, "report the probabilities of the tokens")
    top_logprobs: Natural = field(0, "likeliest tokens reported beside each chosen one", least=0, most=20)

    model: Any = field(None, "ignored: one model is loaded")
    keep_alive: Any = field(
        None, "0 and no prompt: the reply says `unload`; the model stays loaded all the same"
    )
    truncate: Truth = field(True, "leave out what the context cannot hold instead of refusing it")
    shift: Any = field(None, "ignored: a reply ends where the context does")


class OllamaGenerateBody(SharedBody):
    """Body of `/api/generate`."""

    prompt: str = field("", "the text to answer; without it nothing is made")
    suffix: str = field("", "refused: nothing is filled in between two texts")
    images: list[Any] = field([], "refused: no model that sees is loaded")
    system: str = field("", "what the model is told before the prompt")
    raw: Truth = field(False, "continue the prompt as it is, without the model's template")
    context: Annotated[tuple[TokenId, ...], Field(max_length=CONTEXT_IDS)] = field(
        (), "the `context` of an earlier reply, which is gone on from"
    )

    template: Any = field(None, "not supported: the model's own template is used")
    width: Any = field(None, "not supported: no model that draws is loaded")
    height: Any = field(None, "not supported: no model that draws is loaded")
    steps: Any = field(None, "not supported: no model that draws is loaded")


class FunctionBody(WireModel):
    """The function of a call."""

    name: str = Field(description="the tool's name")
    arguments: dict[str, Any] = field({}, "what it was called with")


class CallBody(WireModel):
    """A call of a tool that the model made earlier."""

    id: Name = field("", "the call's id; absent: it is told by its place")
    function: FunctionBody = Field(description="what was called")


class MessageBody(WireModel):
    """One message of a chat."""

    role: Literal["system", "user", "assistant", "tool"] = Field(description="who speaks")
    content: str = field("", "what is said")
    thinking: str = field("", "what the assistant thought before")
    images: list[Any] = field([], "refused: no model that sees is loaded")
    tool_calls: tuple[CallBody, ...] = field((), "the calls of tools that the assistant made")
    tool_name: Name = field("", "the tool whose result this is")
    tool_call_id: Name = field("", "the call whose result this is")


class OllamaChatBody(SharedBody):
    """Body of `/api/chat`."""

    messages: Annotated[list[MessageBody], Field(max_length=MESSAGES_LIMIT)] = field(
        [], "the conversation; without it nothing is made"
    )
    tools: Declared = field([], "functions that the model may call; tools of other types are skipped")


class OllamaShowBody(WireModel):
    """Body of `/api/show`."""

    model: Any = field(None, "ignored: one model is loaded")
    name: Any = field(None, "ignored: older name of model")
    verbose: Any = field(None, "ignored: the tokenizer's tables are not sent")


NOT_YET: dict[str, NotYet] = SAMPLERS_NOT_YET
"""Of the options."""

OPTIONS_IGNORED: dict[str, str] = IGNORED_GENERATION_FIELDS | {
    "num_keep": "a prompt that does not fit loses its oldest part, as in KoboldCpp",
    "penalize_newline": "newlines count as any token does, as in KoboldCpp",
    "num_thread": "a setting of the server",
    "num_batch": "a setting of the server",
    "num_gpu": "a setting of the server",
    "main_gpu": "a setting of the server",
    "numa": "a way of loading, and the model is loaded",
    "low_vram": "a way of loading, and the model is loaded",
    "use_mmap": "a way of loading, and the model is loaded",
    "use_mlock": "a way of loading, and the model is loaded",
    "f16_kv": "a way of loading, and the model is loaded",
    "vocab_only": "a way of loading, and the model is loaded",
    "logits_all": "a way of loading, and the model is loaded",
    "embedding_only": "a way of loading, and the model is loaded",
}

SHOW_IGNORED: dict[str, str] = {
    "model": "one model is loaded, and it answers under any name",
    "name": "an older name of model",
    "verbose": "the tokenizer's tables are large, and no client here needs them",
}

CHAT_IGNORED: dict[str, str] = {
    "model": "one model is loaded, and it answers under any name",
    "shift": "a reply ends where the context does",
}

GENERATE_NOT_YET: dict[str, NotYet] = {
    "template": NotYet("it is in Go's template language; the model's own template is used", empty),
    "width": NotYet("no model that draws is loaded", empty),
    "height": NotYet("no model that draws is loaded", empty),
    "steps": NotYet("no model that draws is loaded", empty),
}
"""Of the body of a generation."""
