"""Blocks of calls that models write badly: nothing is found, and the search for it is linear.

A search that is quadratic in these lengths takes minutes.
"""

from collections.abc import Callable

import pytest

from server.chat.tools.blocks import Calls, parse_gemma, parse_glm, parse_xml
from server.chat.tools.markup import parse_hunyuan, parse_invoke, parse_kimi_3, parse_params
from server.chat.tools.python_calls import parse_python
from server.chat.tools.schemas import ArgumentTypes

BLANKS = " " * 200_000


@pytest.mark.parametrize(
    "block", [BLANKS, "call:" + BLANKS, "a" + BLANKS, "a" * 200_000, "call:a" + BLANKS + "("]
)
def test_gemma(block: str) -> None:
    assert parse_gemma(block, '"') == []


@pytest.mark.parametrize(
    "block",
    [BLANKS, "f><parameter" + BLANKS, "f><parameter=a" + BLANKS, "f><parameter=a" + " b" * 100_000],
)
def test_xml(block: str) -> None:
    assert all(not arguments for _, arguments in parse_xml(block, ArgumentTypes(())))


@pytest.mark.parametrize("block", [BLANKS, "f<arg_key>a</arg_key>" + BLANKS, "f" + "<arg_key>a" * 20_000])
def test_glm(block: str) -> None:
    assert all(not arguments for _, arguments in parse_glm(block, ArgumentTypes(())))


@pytest.mark.parametrize(
    "block",
    [
        BLANKS,
        "[f(" + BLANKS,
        "f(a=" + "'\\'" * 100_000,
        "f(a='" + "'x" * 100_000,
        "[" * 100_000,
        "f(a=" + "[" * 100_000,
        "f(a=1," * 50_000,
        "```python\n" * 50_000,
        "a" * 200_000,
    ],
)
def test_python(block: str) -> None:
    assert parse_python(block, ArgumentTypes(())) == []


@pytest.mark.parametrize("parse", [parse_invoke, parse_params, parse_kimi_3, parse_hunyuan])
@pytest.mark.parametrize(
    "block",
    [
        BLANKS,
        '"f"' + BLANKS,
        '"f"><｜X｜parameter name="a">' * 20_000,
        '"f"><param name="a">' * 20_000,
        '"f"<|sep|>' + '<|open|>argument key="a"<|sep|>' * 20_000,
        '"f"' + " <" * 100_000,
        '"f"' + "<｜" * 100_000,
    ],
)
def test_markup(block: str, parse: Callable[[str, ArgumentTypes], Calls]) -> None:
    assert all(not arguments for _, arguments in parse(block, ArgumentTypes(())))


def test_a_name_has_no_blanks_at_its_end() -> None:
    assert parse_xml("f><parameter=a b  >1</parameter>", ArgumentTypes(())) == [("f", {"a b": "1"})]
