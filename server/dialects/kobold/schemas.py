"""The wire of the Kobold dialect: what clients send."""

from typing import Any

from server.wire.lenient import Count, Name, Texts, Truth, WireModel
from server.wire.sampler_fields import IGNORED as IGNORED_SAMPLER_FIELDS
from server.wire.sampler_fields import NOT_YET as SAMPLERS_NOT_YET
from server.wire.sampler_fields import NotYet, SamplerFields, empty, number


class GenerateBody(SamplerFields):
    """Body of the two generate endpoints."""

    prompt: str = ""
    memory: str = ""
    max_context_length: Count | None = None
    max_length: Count | None = None
    stop_sequence: Texts = ()
    trim_stop: Truth = True
    ban_eos_token: Truth | None = None
    use_default_badwordsids: Truth = False
    bypass_eos: Truth = False
    render_special: Truth = False
    genkey: Name = ""

    images: Any = None
    audio: Any = None
    logprobs: Any = None
    reasoning_effort: Any = None
    thinking_budget_tokens: Any = None
    replace_instruct_placeholders: Any = None
    n: Any = None
    quiet: Any = None


class TokenCountBody(WireModel):
    """Body of `/api/extra/tokencount`."""

    prompt: str = ""
    special: Truth = True


class KeyBody(WireModel):
    """Body of abort and check: which generation is meant."""

    genkey: Name = ""


def _single(value: Any) -> bool:
    return number(value) in (None, 0.0, 1.0)


NOT_YET: dict[str, NotYet] = SAMPLERS_NOT_YET | {
    "images": NotYet("no models that see are supported yet", empty),
    "audio": NotYet("no models that hear are supported yet", empty),
    "logprobs": NotYet("token probabilities are not reported yet", empty),
    "reasoning_effort": NotYet("thinking budgets are not built yet", empty),
    "n": NotYet("this endpoint makes one text, as KoboldCpp's does", _single),
}

IGNORED: dict[str, str] = IGNORED_SAMPLER_FIELDS | {
    "thinking_budget_tokens": "a parameter of reasoning_effort",
    "replace_instruct_placeholders": "the version reported is one that sends no placeholders",
    "quiet": "what is logged is the server's choice, and prompts are not",
}
