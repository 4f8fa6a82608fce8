"""The only translator between the Kobold wire and the engine's messages. Pure."""

from dataclasses import replace
from typing import Any

from engine.types import UNTIL_END, Event, FinishReason, GenerationRequest, ModelInfo, TextPrompt
from server.chat.adapters import Adapter
from server.chat.budget import thinking_tokens
from server.chat.placeholders import fill_placeholders
from server.chat.reasoning import Family
from server.dialects.kobold.schemas import GenerateBody
from server.service import Reply, Said, Status
from server.settings import Settings
from server.wire import generation_fields
from server.wire.logprobs import kobold_logprobs

DEFAULT_LENGTH = 180
ADVERTISED_LENGTH = 400
"""What KoboldCpp 1.76 tells clients that ask for the usual length."""

ALTERNATIVES = 10
"""Tokens shown beside each chosen one when a client asks for probabilities."""

FINISH = {
    FinishReason.EOS: "stop",
    FinishReason.STOP: "stop",
    FinishReason.LENGTH: "length",
    FinishReason.ABORT: "length",
    FinishReason.ERROR: "error",
}

STOP_REASON = {FinishReason.LENGTH: 0, FinishReason.ABORT: 0, FinishReason.EOS: 1, FinishReason.STOP: 2}


def to_request(
    body: GenerateBody,
    request_id: str,
    default_length: int | None,
    adapter: Adapter,
    family: Family,
    context: int = UNTIL_END,
) -> GenerationRequest:
    """The engine's request.

    `default_length` is the server's setting for clients that name none; `adapter` and `family` are the
    model's tags of turns and of thoughts; `context` is the server's, of which thoughts get a share where the
    reply may fill it.
    """
    length = generation_fields.said_length(body)
    if length is None:
        length = DEFAULT_LENGTH if default_length is None else default_length
    prompt, memory, stop = body.prompt, body.memory, body.stop_sequence
    if body.replace_instruct_placeholders:
        filled = fill_placeholders(adapter, prompt, memory, stop)
        prompt, memory, stop = filled.prompt, filled.memory, filled.stop
    wanted = generation_fields.to_request(
        body,
        request_id,
        TextPrompt(prompt, memory),
        max_tokens=length,
        stop=stop,
        logprobs=ALTERNATIVES if body.logprobs else None,
        final_logprobs=True,
    )
    budget = thinking_tokens(body.reasoning_effort, body.thinking_budget_tokens, min(length, context))
    return wanted if budget is None else replace(wanted, thinking=family.budget(budget, tools=False))


def from_reply(reply: Reply) -> dict[str, Any]:
    """The answer of `/api/v1/generate`."""
    result = {
        "text": reply.text,
        "finish_reason": FINISH[reply.finish],
        "logprobs": kobold_logprobs(reply.logprobs),
        "prompt_tokens": reply.usage.prompt_tokens,
        "completion_tokens": reply.usage.completion_tokens,
    }
    return {"results": [result]}


def basic_reply(reply: Reply) -> dict[str, Any]:
    """The answer of `/request`."""
    return {"data": {"seqs": [reply.text]}}


def from_event(event: Event) -> dict[str, Any] | None:
    """One piece of the stream; None when there is nothing to say."""
    if event.finish is not None:
        return {"token": event.text, "finish_reason": FINISH[event.finish]}
    return {"token": event.text, "finish_reason": None} if event.text else None


def check_reply(said: Said) -> dict[str, Any]:
    """The answer of `/api/extra/generate/check`."""
    return {"results": [{"text": said.text}]}


def logprobs_reply(said: Said) -> dict[str, Any]:
    """The answer of `/api/extra/last_logprobs`."""
    return {"logprobs": kobold_logprobs(said.logprobs)}


def abort_reply(done: bool) -> dict[str, str]:
    """The answer of `/api/extra/abort`: words, not booleans."""
    word = "true" if done else "false"
    return {"success": word, "done": word}


def props_reply(info: ModelInfo, settings: Settings) -> dict[str, Any]:
    """The answer of `/props`, as far as clients of llama.cpp's server read it."""
    return {
        "chat_template": info.chat_template or "",
        "bos_token": info.bos_token,
        "eos_token": info.eos_token,
        "total_slots": settings.parallelrequests,
        "modalities": {"vision": False, "audio": False},
        "model_path": info.name,
        "n_ctx": info.context_length,
        "default_generation_settings": {"n_ctx": info.context_length},
    }


def perf_reply(status: Status, *, quiet: bool) -> dict[str, Any]:
    """The answer of `/api/extra/perf`: `last_process` and `last_eval` are milliseconds per token."""
    usage = status.last_usage
    processed = 0 if usage is None else usage.prompt_tokens - usage.cached_tokens
    made = 0 if usage is None else usage.completion_tokens
    process_time = 0.0 if usage is None else usage.prompt_seconds
    eval_time = 0.0 if usage is None else usage.decode_seconds
    # decode_seconds spans from the first token to the last: one interval fewer than tokens.
    intervals = max(0, made - 1)
    return {
        "last_process": _ratio(process_time * 1000, processed),
        "last_eval": _ratio(eval_time * 1000, intervals),
        "last_token_count": made,
        "last_seed": -1 if usage is None else usage.seed,
        "total_gens": status.finished,
        "stop_reason": -1 if status.last_finish is None else STOP_REASON.get(status.last_finish, -1),
        "total_img_gens": 0,
        "queue": status.waiting,
        "idle": int(status.open == 0),
        "hordeexitcounter": -1,
        "uptime": status.uptime,
        "idletime": status.idle_time,
        "quiet": quiet,
        "last_input_count": 0 if usage is None else usage.prompt_tokens,
        "last_input_left_out": 0 if usage is None else usage.left_out_tokens,
        "last_process_time": process_time,
        "last_eval_time": eval_time,
        "last_process_speed": _ratio(processed, process_time),
        "last_eval_speed": _ratio(intervals, eval_time),
        "last_draft_success": status.accepted,
        "last_draft_failed": status.drafted - status.accepted,
        "total_tts_gens": 0,
        "total_transcribe_gens": 0,
    }


def _ratio(amount: float, of: float) -> float:
    return amount / of if of > 0 else 0.0
