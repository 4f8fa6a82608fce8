"""Largest bodies in bytes, by what they hold. Prompts, chats and saves have `--maxrequestsize`."""

SMALL_BODY = 64 << 10
"""A genkey, a slot, the name of a model, a switch: some hundred bytes as clients send them."""

SCHEMA_BODY = 1 << 20
"""A JSON schema; those of real tools have some ten kilobytes."""

TEXT_BODY = 8 << 20
"""A text to count, or token ids: a million tokens with every letter escaped."""
