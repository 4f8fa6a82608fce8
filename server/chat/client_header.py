"""Headers that clients put in front of their system prompt, for their vendor's books and not for the model.

Claude Code's bears letters that change with every request. A prompt that begins with them has no beginning in
common with the one before, and nothing of it is cached.
"""

import logging
import re
from collections.abc import Mapping
from typing import Any

from server.chat.history import SYSTEM

logger = logging.getLogger(__name__)

Messages = tuple[Mapping[str, Any], ...]

_HEADERS = re.compile(r"\s*(?:x-(?:[a-z0-9]+-)+[a-z0-9]+:[^\n]*(?:\n\s*|$))+", re.IGNORECASE)
"""Lines like `x-anthropic-billing-header: ...`: names of at least three words, the first of which is x."""

_NAME_SHOWN = 64


def without_headers(messages: Messages) -> Messages:
    """The messages without headers at the beginning of the system message in front; an empty one goes."""
    if not messages or messages[0].get("role") not in SYSTEM:
        return messages
    text = messages[0].get("content")
    if not isinstance(text, str) or (found := _HEADERS.match(text)) is None:
        return messages
    logger.info("the model does not see the header %r", found[0].strip().partition(":")[0][:_NAME_SHOWN])
    rest = text[found.end() :]
    return ({**messages[0], "content": rest}, *messages[1:]) if rest else messages[1:]
