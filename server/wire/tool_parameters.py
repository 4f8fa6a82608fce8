"""The parameters of a tool: a JSON schema, of which a client may send any JSON at all."""

import json
import sys
from typing import Any

_BEYOND = {"Infinity": sys.float_info.max, "-Infinity": -sys.float_info.max}
"""What stands for a number that Python read as infinite, so that the schema stays JSON."""


def read_parameters(value: Any) -> dict[str, Any]:
    """The schema of an object; what is no schema of one allows any."""
    if value is None:
        return {}
    return finite(value) if isinstance(value, dict) else {"type": "object"}


def finite(value: dict[str, Any]) -> dict[str, Any]:
    """An object with JSON's numbers alone: the largest one for those beyond, null for NaN."""
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        read: dict[str, Any] = json.loads(json.dumps(value), parse_constant=_BEYOND.get)
        return read
    except RecursionError:
        pass  # the bounds on depth say so
    return value
