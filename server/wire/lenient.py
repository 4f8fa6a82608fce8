"""Types that read JSON the way Kobold clients write it.

Numbers may be strings (`"12"`), counts may be fractions (12.7 is 12), null means "not said". What
makes no sense as the type at all (a list for a number) is still an error.
"""

import math
import sys
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import CoreSchema

from engine.types import UNTIL_END

COUNT_LIMIT = 2**31 - 1
_LARGEST = sys.float_info.max
"""In place of infinity, which JSON cannot say: Python reads 1e400 so."""
_ENDLESS = (-1, -2)
"""Lengths by which llama.cpp, LM Studio and Ollama mean a text that goes on to the end of the context."""


def _fail_fast(node: Any) -> None:
    """Set `fail_fast` on all schemas of lists in a core schema, which is changed."""
    if isinstance(node, list | tuple):
        for part in node:
            _fail_fast(part)
    elif isinstance(node, dict):
        if node.get("type") in ("list", "tuple"):
            node["fail_fast"] = True
        for name, part in node.items():
            if name != "metadata":
                _fail_fast(part)


class WireModel(BaseModel):
    """A request body, or an object in it: unknown fields are ignored, and a null field counts as absent."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: type[BaseModel], handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Pydantic's schema, but lists are read up to their first bad item alone.

        One error is told; to collect those of a million items takes seconds in which nobody is served.
        """
        schema = handler(source)
        _fail_fast(schema)
        return schema

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, data: Any) -> Any:
        if isinstance(data, dict):
            return {name: value for name, value in data.items() if value is not None}
        # PHP writes an object without fields so.
        return {} if data == [] else data


def _real(value: Any) -> float:
    if not isinstance(value, (bool, int, float, str)):
        raise ValueError("must be a number")
    try:
        number = float(value)
    except (ValueError, OverflowError):
        raise ValueError("must be a number") from None
    if math.isnan(number):
        raise ValueError("must be a number")
    return max(-_LARGEST, min(_LARGEST, number))


def _count(value: Any) -> int:
    return int(max(-COUNT_LIMIT, min(COUNT_LIMIT, _real(value))))


def _length(value: Any) -> int:
    count = _count(value)
    return UNTIL_END if count in _ENDLESS else count


def _seed(value: Any) -> int | None:
    """A seed below 1 asks for a random one; larger ones wrap at 32 bit, as in KoboldCpp."""
    number = value if isinstance(value, int) else int(_real(value))
    return number & 0xFFFF_FFFF if number > 0 else None


def _truth(value: Any) -> bool:
    if isinstance(value, str):
        return value.strip().lower() not in ("", "0", "false", "no", "off")
    return bool(value)


def _texts(value: Any) -> tuple[str, ...]:
    """One string counts as a list of one; null, false and empty strings say nothing."""
    items = value if isinstance(value, list) else [value]
    said = [item for item in items if item is not None and item is not False]
    if not all(isinstance(item, str) for item in said):
        raise ValueError("must be a list of strings")
    return tuple(item for item in said if item)


def _name(value: Any) -> Any:
    return str(value) if isinstance(value, (int, float)) else value


Real = Annotated[float, BeforeValidator(_real)]
CountReader = BeforeValidator(_count)
Count = Annotated[int, CountReader]
# Limits stand before the reader: behind it, JSON schemas would not know them.
Natural = Annotated[int, Field(ge=0), CountReader]
Positive = Annotated[int, Field(ge=1), CountReader]
PositiveLength = Annotated[int, Field(ge=1), BeforeValidator(_length)]
Length = Annotated[int, BeforeValidator(_length)]
Seed = Annotated[int | None, BeforeValidator(_seed)]
Truth = Annotated[bool, BeforeValidator(_truth)]
Texts = Annotated[
    tuple[str, ...],
    BeforeValidator(_texts),
    WithJsonSchema({"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "string"}]}),
]
Name = Annotated[str, BeforeValidator(_name)]
