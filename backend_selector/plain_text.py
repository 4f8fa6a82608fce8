"""Makes text of files and paths, which may hold anything, fit for one line of a terminal."""


def plain(text: str) -> str:
    """The text with a `?` for every character that is not printable: controls, line ends, bad bytes."""
    return "".join(character if character.isprintable() else "?" for character in text)
