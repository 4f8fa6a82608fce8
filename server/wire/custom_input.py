"""The input of a custom tool, from the arguments of the function that stands for it, as they come."""

import json
import re

from server.wire.tools import INPUT

_BEGIN = re.compile(rf'\s*\{{\s*"{INPUT}"\s*:\s*"')
_WHOLE = re.compile(
    r'(?:[^"\\]|\\u(?![dD][89abAB])[0-9a-fA-F]{4}|\\u[0-9a-fA-F]{4}\\u[0-9a-fA-F]{4}|\\["\\/bfnrt])*'
)
"""The characters of a JSON string as far as all of them are whole, surrogates in pairs."""
_ESCAPE = 12
"""Characters of the longest escape, a pair of surrogates."""


class CustomInput:
    """Takes JSON text in pieces; `text` is the input so far."""

    def __init__(self) -> None:
        self.text = ""
        self._held = ""
        self._inside = False

    def push(self, arguments: str) -> str:
        """More of the arguments -> what it adds to the input."""
        self._held += arguments
        if not self._inside:
            begin = _BEGIN.match(self._held)
            if begin is None:
                return ""
            self._inside = True
            self._held = self._held[begin.end() :]
        whole = _WHOLE.match(self._held)
        assert whole is not None
        self._held = self._held[whole.end() :]
        if len(self._held) > _ESCAPE and not self._held.startswith('"'):
            # No JSON string goes on like this: the call was not bound to its schema.
            self._held = self._held[1:]
        added: str = json.loads(f'"{whole[0]}"', strict=False)
        self.text += added
        return added
