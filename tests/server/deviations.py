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
SCHEME = Deviation("The key", 200)
PAGE = Deviation("The pages are our own", 200)
CHUNKED = Deviation("Chunked request bodies are read", 200)
ABORT = Deviation("Aborting nothing is no success", 200, {"success": "false", "done": "false"})
TEMPLATE = Deviation("Chat uses the model's own template", 422)
TOOLS = Deviation("Tool calls are OpenAI's", 200)
GRAMMAR = Deviation("A grammar that does not parse is refused", 400)
MEDIA = Deviation("What the model cannot take is refused", 400)
LATER = "Endpoints of later versions"

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
    **_rows(SCHEME, "pw_gen_key_lowercase_scheme"),
    **_rows(PAGE, "a_get_v1", "a_get_api_v1", "a_get_foo_api"),
    **_rows(CHUNKED, "a_post_chunked"),
    **_rows(
        ABORT,
        "a_abort_badjson",
        "a_abort_idle",
        "a_abort_idle_nobody",
        "pw_abort_key",
    ),
    **_rows(TEMPLATE, "a_oai_chat_empty_messages"),
    **_rows(TOOLS, "gr_tools_auto", "gr_tools_none"),
    **_rows(MEDIA, "a_oai_chat_parts"),
    **_rows(GRAMMAR, "gp_2_invalid", "gr_zz_no_root"),
    **_rows(Deviation("Only generations wait", 200, {"text": ""}), "mu0_busy_transcribe"),
    **_rows(Deviation("What is not needed is not read", 200, {"text": ""}), "a_transcribe_badjson"),
    **_rows(
        Deviation(LATER, 200),
        "a_get_last_logprobs",
        "a_get_ollama_version",
        "a_get_props",
        "a_last_logprobs_404_body",
        "a_logprobs_post",
        "a_oai_embeddings",
        "a_ollama_chat",
        "a_ollama_generate",
    ),
    **_rows(Deviation(LATER, 200, []), "a_get_sd_loras"),
    **_rows(Deviation(LATER, 400), "a_v1_messages"),
    **_rows(Deviation(LATER, 503), "a_tts_speech"),
}

_CHOICE = frozenset({"logprobs", "prompt_tokens_details"})
_ADDED = {
    "/generate": frozenset({"logprobs", "prompt_tokens", "completion_tokens"}),
    "/completions": _CHOICE,
    "/completion": _CHOICE,
    "/tokencount": frozenset({"prompt"}),
    "/models": frozenset({"status"}),
    "/extra/version": frozenset(
        {
            "llm",
            "audio",
            "multiplayer",
            "websearch",
            "tts",
            "embeddings",
            "music",
            "savedata",
            "admin",
            "router",
            "guidance",
            "jinja",
            "mcp",
        }
    ),
    "/perf": frozenset(
        {
            "last_input_count",
            "last_input_left_out",
            "last_process_time",
            "last_eval_time",
            "last_process_speed",
            "last_eval_speed",
            "last_draft_success",
            "last_draft_failed",
            "total_tts_gens",
            "total_transcribe_gens",
        }
    ),
}


def added_keys(path: str) -> frozenset[str]:
    """Keys that the endpoint's answer has and 1.76's had not, at whatever depth.

    Those are keys of later versions, and in every error `error` for OpenAI clients.
    """
    path = path.partition("?")[0].rstrip("/")
    added = (keys for ending, keys in _ADDED.items() if path.endswith(ending))
    return frozenset({"error"}).union(*added)
