"""Parts of a message's content, in the words of all dialects. Knows which of them are text."""

from collections.abc import Mapping
from typing import Any

from engine.errors import RequestError

TEXTS: Mapping[str, str] = {
    "text": "text",
    "input_text": "text",
    "output_text": "text",
    "summary_text": "text",
    "reasoning_text": "text",
    "refusal": "refusal",
}
"""Types of parts that are text, with the field that holds it."""

MEDIA = frozenset(
    (
        *("image", "image_url", "input_image", "image_file", "computer_screenshot"),
        *("audio", "audio_url", "input_audio", "output_audio", "video", "video_url", "input_video"),
        *("file", "file_url", "input_file", "document", "container_upload"),
    )
)
"""Types of parts that only a model with other senses than text can use."""

KIND_SHOWN = 40
"""Characters of a part's type that messages repeat."""


def text_of_part(part: Any, place: str) -> str | None:
    """The text of a part; None for one of a type that is not known here.

    `place`: where the part is in the request's body. Raises `RequestError` for what is no part, for text
    that is missing, and for media.
    """
    if not isinstance(part, Mapping):
        raise RequestError(f"{place}: must be an object")
    kind = part.get("type")
    if not isinstance(kind, str):
        return None
    if kind in MEDIA:
        raise RequestError(f"{place}: no model that sees or hears is loaded, so {kind} is refused")
    if kind not in TEXTS:
        return None
    return string_of(part, TEXTS[kind], place)


def string_of(item: Mapping[str, Any], name: str, place: str) -> str:
    """The field `name` of an object at `place`. Raises `RequestError` where it is no text."""
    value = item.get(name)
    if not isinstance(value, str):
        raise RequestError(f"{place}.{name}: must be text")
    return value


def kind_of(part: Mapping[str, Any]) -> str:
    """The part's type as messages and the log show it, in quotes."""
    return repr(str(part.get("type"))[:KIND_SHOWN])


def unknown_part(part: Mapping[str, Any], place: str) -> RequestError:
    """The refusal of a part of a type that is not known here."""
    return RequestError(f"{place}: {kind_of(part)} is no type of content that is known here")
