"""The story that the server hands to clients which open it: KoboldCpp's `--preloadstory`."""

import json
from pathlib import Path
from typing import Any

from engine.errors import ConfigError

LIMIT = 32 << 20
"""Bytes of the largest story that is taken."""


def read_story(path: Path | None) -> dict[str, Any]:
    """The JSON object in the file, `{}` where there is none to read: what clients take for no story.

    Raises `ConfigError` for a file that cannot be read, is larger than `LIMIT`, or holds something else.
    """
    if path is None:
        return {}
    try:
        # Not read_bytes: a device or a pipe has no end.
        with path.open("rb") as file:
            raw = file.read(LIMIT + 1)
    except OSError as error:
        raise ConfigError(f"cannot read the story {path}: {error.strerror}") from None
    if len(raw) > LIMIT:
        raise ConfigError(f"the story {path} is larger than {LIMIT >> 20} MB")
    try:
        story = json.loads(raw.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"the story {path} is not JSON: {error}") from None
    if not isinstance(story, dict):
        raise ConfigError(f"the story {path} is not one: it holds no JSON object")
    return story
