"""Windows of token ids, cut from text."""

import hashlib

import torch

from engine.errors import RequestError
from engine.text import Text
from engine.tokenizer import Tokenizer

_HELD_OUT_SHARE = 5
"""At most this fraction of a text is held out."""


def cut(text: Text, tokenizer: Tokenizer, length: int, *, most: int | None = None) -> torch.Tensor:
    """Consecutive windows, int64 [windows, length], each beginning with BOS where the model wants one.

    Raises `RequestError` for a text shorter than one window.
    """
    ids = torch.tensor(tokenizer.encode(text.content), dtype=torch.int64)
    count = len(ids) // length if most is None else min(most, len(ids) // length)
    if count < 1:
        raise RequestError(f"the text {text.name} has {len(ids)} tokens; at least {length} are needed")
    windows = ids[: count * length].view(count, length).clone()
    if tokenizer.add_bos and tokenizer.bos_id is not None:
        windows[:, 0] = tokenizer.bos_id
    return windows


def hold_out(windows: torch.Tensor, wanted: int) -> tuple[torch.Tensor, torch.Tensor]:
    """All but the last windows, and the last ones: `wanted`, but at most a fifth of all; maybe none."""
    kept = len(windows) - min(wanted, len(windows) // _HELD_OUT_SHARE)
    return windows[:kept], windows[kept:]


def digest(windows: torch.Tensor) -> str:
    """Hexadecimal SHA-256 of windows, [windows, T], to tell one text from another, and cuts of one text."""
    return hashlib.sha256(f"{tuple(windows.shape)}".encode() + windows.numpy().tobytes()).hexdigest()
