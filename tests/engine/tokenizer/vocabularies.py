"""Small tokenizers of both families, as metadata."""

from typing import Any

from engine.tokenizer.bpe import _byte_characters

Metadata = dict[str, Any]

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)


def byte_pairs(**changes: Any) -> Metadata:
    """Bytes, three merges, two control tokens and a user-defined one. `changes` replace single keys."""
    letters = sorted(_byte_characters())
    merges = ["h e", "l l", "he ll", "Ġ w"]
    tokens = [*letters, *(merge.replace(" ", "") for merge in merges)]
    extra = {"<|begin|>": CONTROL, "<|im_end|>": CONTROL, "<tool>": USER_DEFINED, "<|unused|>": UNUSED}
    return _changed(
        {
            "model": "gpt2",
            "pre": "gpt-2",
            "tokens": [*tokens, *extra],
            "token_type": [NORMAL] * len(tokens) + list(extra.values()),
            "merges": merges,
            "bos_token_id": len(tokens),
            "eos_token_id": len(tokens) + 1,
        },
        changes,
    )


def sentence_pieces(**changes: Any) -> Metadata:
    """Specials, all bytes and a few pieces, the better scores first. `changes` replace single keys."""
    pieces = ["▁w", "he", "ll", "hell", "hello", "▁hello", "or", "▁wor", "ld", "▁world"]
    letters = [*"▁helowrd"]
    tokens = [
        "<unk>",
        "<s>",
        "</s>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        *pieces,
        *letters,
        "<tool>",
    ]
    return _changed(
        {
            "model": "llama",
            "tokens": tokens,
            "scores": [0.0] * 259 + [-float(rank) for rank in range(len(tokens) - 259)],
            "token_type": [UNKNOWN, CONTROL, CONTROL]
            + [BYTE] * 256
            + [NORMAL] * (len(tokens) - 260)
            + [USER_DEFINED],
            "bos_token_id": 1,
            "eos_token_id": 2,
            "unknown_token_id": 0,
        },
        changes,
    )


def _changed(values: Metadata, changes: Metadata) -> Metadata:
    """With the keys' prefix; a change to None takes the key away."""
    merged = {**values, **changes}
    return {f"tokenizer.ggml.{key}": value for key, value in merged.items() if value is not None}
