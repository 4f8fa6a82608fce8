"""Writes grammars in llguidance's dialect of Lark.

A name in capitals is a terminal: a regular expression, which the lexer matches in one piece and as
far as it goes. A name in small letters is a rule of the context-free grammar above the terminals.
"""

import json
import re
from collections.abc import Iterable

START = "start"
HEADER = "%llguidance {}"
"""Where the grammar leaves no choice of text, the tokens are those that the tokenizer makes of it."""

HEADER_UNFORCED = '%llguidance {"no_forcing": true}'
"""The model chooses its tokens even there."""


_TO_ESCAPE = re.compile(r"[^A-Za-z0-9_ ]")


def quote(text: str) -> str:
    """`text` as a Lark string, which has the form of a JSON string in ASCII."""
    return json.dumps(text)


def token(token_id: int) -> str:
    """One token, whatever its text; special tokens can be written in this way only."""
    return f"<[{token_id}]>"


def one_of(ranges: Iterable[tuple[int, int]]) -> str:
    """A token of one of the ranges (first and last, both included): llguidance takes no other list."""
    return f"<[{','.join(f'{first}-{last}' for first, last in ranges)}]>"


def regex(pattern: str) -> str:
    """A pattern of Rust's regex crate as a Lark terminal. It must not hold a bare slash."""
    return f"/{pattern}/"


def escape(text: str) -> str:
    """`text` as a pattern that matches it and nothing else."""
    return _TO_ESCAPE.sub(lambda found: code_point(ord(found.group())), text)


def code_point(code: int) -> str:
    """A code point as a pattern, inside a class or out of it."""
    return f"\\x{{{code:X}}}"
