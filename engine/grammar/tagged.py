"""Turns free text with tags in it, the way of tool calls, into Lark.

    start: (text token | before tag)* text      free text and several tags
    start: (tag GAP)+                           several tags and nothing else

`before` is text up to and including the first trigger, one lazy terminal: what follows it is bound.
`text` never holds the trigger. Where the model writes the beginning of a tag with a special token, that
token is the trigger. `token` is any other special token but those that end a reply: models use them for
thoughts.
"""

from dataclasses import dataclass

from engine.errors import RequestError
from engine.grammar import lark
from engine.grammar.json_schema import json_schema_to_lark
from engine.grammar.tokens import GrammarTokens, ranges_of
from engine.types import Tag, TaggedGrammar

MAX_TAGS = 256
MAX_TEXT = 4096
"""Characters of a tag's beginning or end."""

MAX_LENGTH = 1 << 20
"""Characters of all texts and schemas together."""

_HEAD = "head"
_ANY = "(?s:.*)"
_GAP = r"[ \t\r\n]{0,4}"
"""What may stand between two tags where nothing but tags may come."""


@dataclass(frozen=True, slots=True)
class _Parts:
    """A tag's texts as the tokenizer reads them; `ends` if its end is the end of the reply."""

    begin: list[str | int]
    end: list[str | int]
    ends: bool


def tagged_to_lark(grammar: TaggedGrammar, tokens: GrammarTokens) -> str:
    """The same grammar in Lark. Raises RequestError, one line, for what cannot be."""
    _check(grammar)
    parts = [_split(tag, tokens) for tag in grammar.tags]
    opening = _opening(grammar.trigger, parts)
    lines = [lark.HEADER]
    branches: dict[bool, list[str]] = {False: [], True: []}
    for number, (tag, part) in enumerate(zip(grammar.tags, parts, strict=True)):
        first = part.begin[0]
        rest = [first[len(opening) :], *part.begin[1:]] if isinstance(first, str) else part.begin[1:]
        body = " ".join([*_atoms(rest), json_schema_to_lark(tag.schema), *_atoms(part.end)])
        lines.append(f"tag{number}: {body}")
        if isinstance(first, str):
            head = lark.quote(opening) if grammar.required else _HEAD
        else:
            head = lark.token(first) if grammar.required else f"TEXT {lark.token(first)}"
        branches[part.ends].append(f"{head} tag{number}")
    if grammar.required:
        lines += _only_tags(branches, several=grammar.several)
    else:
        firsts = {part.begin[0] for part in parts}
        others = [i for i in tokens.special_ids() if i not in firsts]
        lines += _with_text(branches, opening or grammar.trigger, others, several=grammar.several)
    return "\n".join([*lines, ""])


def _check(grammar: TaggedGrammar) -> None:
    if not grammar.trigger:
        raise RequestError("the trigger of the tags is empty")
    if not 0 < len(grammar.tags) <= MAX_TAGS:
        raise RequestError(f"a grammar needs 1 to {MAX_TAGS} tags, not {len(grammar.tags)}")
    if sum(len(tag.begin) + len(tag.schema) + len(tag.end) for tag in grammar.tags) > MAX_LENGTH:
        raise RequestError(f"the tags are longer than {MAX_LENGTH} characters")
    if len({tag.begin for tag in grammar.tags}) < len(grammar.tags):
        raise RequestError("two tags have the same beginning")
    for tag in grammar.tags:
        if max(len(tag.begin), len(tag.end)) > MAX_TEXT:
            raise RequestError(f"a tag's beginning or end is longer than {MAX_TEXT} characters")
        if not tag.begin.startswith(grammar.trigger):
            raise RequestError(f"the tag {tag.begin[:64]!r} does not start with {grammar.trigger[:64]!r}")


def _split(tag: Tag, tokens: GrammarTokens) -> _Parts:
    begin, end = tokens.split(tag.begin), tokens.split(tag.end)
    if any(isinstance(part, int) and tokens.is_end(part) for part in begin):
        raise RequestError(f"the tag {tag.begin[:64]!r} holds a token that ends the reply")
    for at, part in enumerate(end):
        if isinstance(part, int) and tokens.is_end(part):
            return _Parts(begin, end[:at], ends=True)
    return _Parts(begin, end, ends=False)


def _opening(trigger: str, parts: list[_Parts]) -> str:
    """The plain text that all tags begin with which begin with plain text, at most the trigger."""
    plain = [part.begin[0] for part in parts if isinstance(part.begin[0], str)]
    return min([trigger, *plain], key=len) if plain else ""


def _atoms(parts: list[str | int]) -> list[str]:
    return [lark.quote(part) if isinstance(part, str) else lark.token(part) for part in parts if part != ""]


def _only_tags(branches: dict[bool, list[str]], *, several: bool) -> list[str]:
    tags, last = " | ".join(branches[False]), " | ".join(branches[True])
    if not several or not tags:
        return [f"{lark.START}: {' | '.join(part for part in (tags, last) if part)}"]
    lines = [f"tags: {tags}", f"GAP: {lark.regex(_GAP)}"]
    if not last:
        return [f"{lark.START}: (tags GAP)+", *lines]
    return [f"{lark.START}: (tags GAP)+ | (tags GAP)* last", f"last: {last}", *lines]


def _with_text(
    branches: dict[bool, list[str]], trigger: str, others: list[int], *, several: bool
) -> list[str]:
    quoted = lark.escape(trigger)
    prose = [f"TEXT {lark.one_of(ranges_of(others))}"] if others else []
    again = [*prose, *(branches[False] if several else [])]
    last = ["TEXT", *branches[True], *([] if several else branches[False])]
    return [
        f"{lark.START}: again* last" if again else f"{lark.START}: last",
        *([f"again: {' | '.join(again)}"] if again else []),
        f"last: {' | '.join(last)}",
        f"{_HEAD}[lazy]: {lark.regex(_ANY + quoted)}",
        f"TEXT: {lark.regex(_ANY)} & ~{lark.regex(_ANY + quoted + _ANY)}",
    ]
