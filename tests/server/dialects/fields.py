"""What all dialects' bodies share, and how the lists of their fields are checked."""

from collections.abc import Collection, Mapping
from typing import Any

from server.wire.lenient import WireModel

GENERATION_CHANGES: dict[str, Any] = {
    "temperature": 0, "top_k": 1, "top_p": 0.5, "min_p": 0.1, "top_a": 0.2, "typical": 0.5, "tfs": 0.5,
    "nsigma": 1, "rep_pen": 1.2, "repetition_penalty": 1.2, "repeat_penalty": 1.2, "rep_pen_range": 5,
    "rep_pen_slope": 0.5, "presence_penalty": 1, "frequency_penalty": 1, "mirostat": 2, "mirostat_tau": 4,
    "mirostat_eta": 0.2, "dynatemp_range": 1, "dynatemp_exponent": 2, "smoothing_factor": 1,
    "smoothing_curve": 2, "dry_multiplier": 1, "dry_base": 2, "dry_allowed_length": 3,
    "dry_penalty_last_n": 9, "dry_sequence_breakers": ["x"], "xtc_threshold": 0.1, "xtc_probability": 0.5,
    "adaptive_target": 0.5, "adaptive_decay": 0.5, "sampler_order": [0], "sampler_seed": 3,
    "logit_bias": {"1": 1}, "custom_token_bans": "4", "max_length": 5, "max_context_length": 99,
    "stop_sequence": ["x"], "trim_stop": False, "ban_eos_token": True, "use_default_badwordsids": True,
    "bypass_eos": True, "render_special": True, "grammar": "root ::= x", "banned_tokens": ["x"],
    "banned_strings": ["x"], "n_predict": 5, "theta": False, "truncation": "disabled",
}  # fmt: skip
"""A value for each field of a generation that makes another request of it."""


def untold(fields: Mapping[str, str]) -> None:
    """Where nothing is asked for in vain."""
    raise AssertionError(fields)


def check_lists(model: type[WireModel], mapped: Collection[str], *listed: Mapping[str, object]) -> None:
    """Every field of the model is mapped, or in one of the lists with a reason, and never both."""
    lists = [mapped, *listed]
    assert set().union(*lists) == model.model_fields.keys()
    assert sum(map(len, lists)) == len(model.model_fields), "no field is in two lists"
    assert all(reason for one in listed for reason in one.values())
