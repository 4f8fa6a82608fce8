"""Makes what a file calls its parts fit for one line of an error message."""

MOST_SHOWN = 64
"""Characters of a name that a message shows."""


def quoted(name: str) -> str:
    """The name in quotes: what is not printable escaped, the end of a long one left out."""
    inner = repr(name[: MOST_SHOWN + 1])[1:-1]
    if len(inner) > MOST_SHOWN:
        inner = inner[: MOST_SHOWN - 3] + "..."
    return f"'{inner}'"
