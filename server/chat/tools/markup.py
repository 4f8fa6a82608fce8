"""Calls in tags that say of each argument what type it has, or with a name for each tag of their own.

Each parser is given a block without its opening and end tags, as in `blocks`. A block that is cut off gives
what is whole in it.
"""

import re
from typing import Any

from server.chat.tools.blocks import Calls, parse_glm
from server.chat.tools.json_value import parse_json
from server.chat.tools.schemas import ArgumentTypes

_INVOKED = re.compile(r"\s*\"([^\"<>]+)\"\s*>")
_PARAMETER = re.compile(r"<(｜\w+｜)parameter\s+name=\"([^\"<>]*)\"(?:\s+string=\"(\w+)\")?\s*>")
_FUNCTION = re.compile(r"\s*[\"']([^\"'<>]+)[\"']\s*>")
_PARAM = re.compile(r"<param\s+name=[\"']([^\"'<>]*)[\"']\s*>")
_CALLED = re.compile(r"\s*\"([^\"<>]+)\"[^<>]*<\|sep\|>")
_ARGUMENT = re.compile(r"<\|open\|>(?:argument\s+key=\"([^\"<>]*)\"|json)(?:\s+type=\"(\w+)\")?\s*<\|sep\|>")
_SUFFIX = re.compile(r"<(/?(?:arg_key|arg_value|tool_sep)):\w+>")


def parse_invoke(block: str, types: ArgumentTypes) -> Calls:
    """`"NAME"><｜X｜parameter name="KEY" string="true">VALUE</｜X｜parameter>...`: DeepSeek's from V3.2 on.

    Values with `string="false"` are JSON.
    """
    found = _INVOKED.match(block)
    if found is None:
        return []
    arguments: dict[str, Any] = {}
    place = found.end()
    while opening := _PARAMETER.search(block, place):
        end = f"</{opening[1]}parameter>"
        stop = block.find(end, opening.end())
        if stop < 0:
            break
        value = block[opening.end() : stop]
        if opening[3] == "true":
            arguments[opening[2]] = value
        else:
            arguments[opening[2]] = _json(value, found[1], opening[2], types)
        place = stop + len(end)
    return [(found[1], arguments)]


def parse_params(block: str, types: ArgumentTypes) -> Calls:
    """`"NAME"><param name="KEY">VALUE</param>...`, values also in CDATA: MiniCPM's from 5 on."""
    found = _FUNCTION.match(block)
    if found is None:
        return []
    arguments: dict[str, Any] = {}
    place = found.end()
    while (opening := _PARAM.search(block, place)) and (stop := block.find("</param>", opening.end())) >= 0:
        value = block[opening.end() : stop]
        bare = value.strip()
        if bare.startswith("<![CDATA[") and bare.endswith("]]>"):
            value = bare[len("<![CDATA[") : -len("]]>")]
        arguments[opening[1]] = types.typed(found[1], opening[1], value.removeprefix("\n").removesuffix("\n"))
        place = stop + len("</param>")
    return [(found[1], arguments)]


def parse_kimi_3(block: str, types: ArgumentTypes) -> Calls:
    """`"NAME" index="1"<|sep|>`, then arguments, each opened, typed and closed, or all of them as JSON."""
    found = _CALLED.match(block)
    if found is None:
        return []
    name = _plain(found[1])
    arguments: dict[str, Any] = {}
    place = found.end()
    while opening := _ARGUMENT.search(block, place):
        end = f"<|close|>{'json' if opening[1] is None else 'argument'}<|sep|>"
        stop = block.find(end, opening.end())
        if stop < 0:
            break
        value = block[opening.end() : stop]
        if opening[1] is not None:
            key = _plain(opening[1])
            arguments[key] = value if opening[2] == "string" else _json(value, name, key, types)
        else:
            whole = _json(value, name, "", types)
            arguments |= whole if isinstance(whole, dict) else {}
        place = stop + len(end)
    return [(name, arguments)]


def parse_hunyuan(block: str, types: ArgumentTypes) -> Calls:
    """`NAME<tool_sep>` and GLM's arguments, whose tags may end in a name of the model's edition."""
    return parse_glm(_SUFFIX.sub(r"<\1>", block), types)


def _json(text: str, name: str, key: str, types: ArgumentTypes) -> Any:
    try:
        return parse_json(text)
    except ValueError:
        return types.typed(name, key, text)


def _plain(attribute: str) -> str:
    return attribute.replace("&quot;", '"').replace("&amp;", "&")
