"""Where the server answers otherwise than KoboldCpp 1.76 did, on purpose.

Each row names the recorded exchanges, what is answered instead, and the heading in
`docs/deviations.md` that says why.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Deviation:
    heading: str
    status: int | None = None
    """The status answered instead; the body is then compared with `body` alone."""
    body: Any = None
    """A part of the body answered instead; None: the body is not compared."""


def _rows(deviation: Deviation, *names: str) -> dict[str, Deviation]:
    return dict.fromkeys(names, deviation)


NUMBERS = Deviation("Numbers may be strings, fractions and null", 200)
BAD_TYPE = Deviation("Wrong types are answered", 422)
NOT_OBJECT = Deviation("Wrong types are answered", 400)
QUERY = Deviation("A query string does not hide an endpoint", 401)
PAGE = Deviation("The pages are our own", 200)
CHUNKED = Deviation("Chunked request bodies are read", 200)
ABORT = Deviation("Aborting nothing is no success", 200, {"success": "false", "done": "false"})
TEMPLATE = Deviation("Chat uses the model's own template", 422)
TOOLS = Deviation("No tool calls yet", 200)

DEVIATIONS: dict[str, Deviation] = {
    **_rows(
        NUMBERS,
        "a_gen_ctx_string",
        "a_gen_custom_token_bans_null",
        "a_gen_genkey_int",
        "a_gen_maxlen_float",
        "a_gen_maxlen_float_frac",
        "a_gen_maxlen_null",
        "a_gen_memory_null",
        "a_gen_reppen_string",
        "a_gen_seed_null",
        "a_gen_stop_null_item_trim",
        "a_gen_stop_null_trim",
        "a_gen_temp_string",
        "a_gen_topk_float",
        "a_gen_topk_string",
        "a_gen_ctx_one",
        "ad_chat_stop_null",
    ),
    **_rows(
        BAD_TYPE,
        "a_gen_prompt_int",
        "a_gen_prompt_list",
        "a_gen_stop_int_item",
        "a_sse_kai_prompt_int",
        "a_oai_chat_no_role",
        "a_oai_chat_no_role_stream",
    ),
    **_rows(NOT_OBJECT, "a_gen_json_array", "a_gen_json_empty_list", "a_gen_json_null"),
    **_rows(Deviation("Completions take lists of prompts", 200), "a_oai_cmpl_prompt_list"),
    **_rows(QUERY, "pw_gen_key_query"),
    **_rows(PAGE, "a_get_v1", "a_get_api_v1", "a_get_foo_api"),
    **_rows(CHUNKED, "a_post_chunked"),
    **_rows(
        ABORT,
        "a_abort_badjson",
        "a_abort_idle",
        "a_abort_idle_nobody",
        "a_queue_abort_nokey",
        "a_sse_abort_call",
        "pw_abort_key",
    ),
    **_rows(TEMPLATE, "a_oai_chat_empty_messages"),
    **_rows(TOOLS, "gr_tools_auto", "gr_tools_none"),
}

ADDED_KEYS = {
    "error",
    "logprobs",
    "prompt_tokens",
    "completion_tokens",
    "prompt_tokens_details",
    "last_input_count",
    "last_process_time",
    "last_eval_time",
    "last_process_speed",
    "last_eval_speed",
    "last_draft_success",
    "last_draft_failed",
    "total_tts_gens",
    "total_transcribe_gens",
}
"""Keys that 1.76 did not have: those of later versions, and `error` for OpenAI clients."""
