"""Bounds JSON text before it is parsed: `json.loads` holds the interpreter lock until it has parsed all.

One long string costs next to nothing. Many values cost time and, at up to a hundred bytes each, memory.
"""

import re

VALUES = 1 << 18
"""Most values of a body: twice the token ids of the longest usual context. They are parsed in about 50 ms."""

_QUOTE = ord('"')
_SEPARATORS = (b",", b"[", b"{")
_STRING_OR_SEPARATORS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?+|[,\[{]++', re.DOTALL)


def has_too_many_values(raw: bytes) -> bool:
    """Whether JSON text has more than `VALUES` values. Text that is no JSON may be judged either way.

    Ends at the first value that is too many: the work is bounded by the values, not by the text.
    """
    if sum(map(raw.count, _SEPARATORS)) <= VALUES:
        return False  # a comma in a string counts too much here, which is why the other way follows
    values = strings = 0
    for found in _STRING_OR_SEPARATORS.finditer(raw):
        start, stop = found.span()
        if raw[start] == _QUOTE:
            strings += 1
        else:
            values += stop - start
        # A key and a value may be a string each; more strings are no JSON.
        if values > VALUES or strings > 2 * VALUES:
            return True
    return False
