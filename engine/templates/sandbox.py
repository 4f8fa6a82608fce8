"""Compiles and renders the Jinja templates of model files, inside a process with hard limits.

The process bounds time and memory (`limits.Limits`). The sandbox keeps templates away from Python, and
refuses early, and by name, what would use them up: characters written (also those captured by macros and
block assignments), the size of what `+`, `~`, `*`, `**` and `%` and the filters and methods that repeat
or join can make, `range`, and the filters and methods on offer: what transformers gives to chat templates.
What one operation does within these sizes, such as comparing two nested lists, is for the process to end.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import wraps
from typing import Any, NoReturn

from jinja2 import Template, TemplateError, filters, nodes, pass_context
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer
from markupsafe import soft_str

from engine.templates.limits import MAX_BITS, MAX_INDENT, MAX_VALUE, MAX_WRITTEN

_FORM_GROWTH = 256
"""How many times longer than its form Python lets a date grow."""

_LIMITS = "\0limits"
"""The name of a rendering's limits among the template's variables: one that no template can spell."""


class TemplateLimitError(Exception):
    """A template asked for more than a rendering may cost."""


def compile_template(source: str) -> Template:
    """Compile a chat template. Raises whatever Jinja and Python raise for broken sources."""
    environment = _Environment()
    tree = _Counting().visit(environment.parse(source))
    tree.set_environment(environment)
    return Template.from_code(environment, environment.compile(tree), environment.make_globals(None))


def render_template(template: Template, variables: Mapping[str, Any]) -> str:
    """Render within the limits. Raises TemplateLimitError, and whatever the template's code raises."""
    return template.render({**variables, _LIMITS: _Limits()})


class _Limits:
    """What one rendering has left."""

    def __init__(self) -> None:
        self.written = 0

    def write(self, size: int) -> None:
        self.written += size
        if self.written > MAX_WRITTEN:
            raise TemplateLimitError(f"it writes more than {MAX_WRITTEN} characters")


def _limits(context: Context) -> _Limits:
    limits = context.get(_LIMITS)
    assert isinstance(limits, _Limits)
    return limits


def _bound(size: int) -> None:
    if size > MAX_VALUE:
        raise TemplateLimitError(f"it makes a value of more than {MAX_VALUE} characters or elements")


def _measure(value: object) -> int:
    """About how long `str(value)` will be: a value nested in itself many times is small until then."""
    size, waiting = 0, [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            size += len(item)
        elif isinstance(item, Mapping):
            waiting.extend(item.keys())
            waiting.extend(item.values())
        elif isinstance(item, list | tuple | set):
            waiting.extend(item)
        size += 4
        _bound(size + len(waiting))
    return size


@pass_context
def _write(context: Context, value: object) -> object:
    """See everything before it is written, constant text included."""
    _limits(context).write(len(value) if isinstance(value, str) else _measure(value))
    return value


class _Counting(NodeTransformer):
    """Leads constant text and `~` past the checks."""

    def visit_TemplateData(self, node: nodes.TemplateData) -> nodes.Node:  # noqa: N802 - Jinja's name
        return nodes.Const(node.data, lineno=node.lineno)

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        first, *rest = [_filter(part, "string") for part in node.nodes]
        joined: nodes.Expr = first
        for part in rest:
            joined = nodes.Add(joined, part, lineno=node.lineno)
        return joined


def _filter(node: nodes.Expr, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


class _GenerationBlock(Extension):
    """`{% generation %}` marks the assistant's part for training; here it means nothing."""

    tags = {"generation"}  # noqa: RUF012 - Jinja's interface

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[_GenerationBlock, "jinja2.ext.loopcontrols"],
            finalize=_write,
        )
        self.filters = {name: filters.FILTERS[name] for name in _FILTERS} | _OWN_FILTERS
        self.globals = {name: self.globals[name] for name in _GLOBALS} | {
            "raise_exception": _raise_exception,
            "strftime_now": _strftime_now,
        }

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        owner = getattr(obj, "__self__", None)
        if isinstance(owner, str):
            if obj.__name__ == "replace":
                return _replace(owner, *args, **kwargs)
            if obj.__name__ == "join":
                return _join(args[0], owner)
            if obj.__name__ in _PADDING:
                _bound(
                    sum(value for value in (len(owner), *args, *kwargs.values()) if isinstance(value, int))
                )
            if obj.__name__ == "expandtabs":
                size = next((value for value in (*args, *kwargs.values()) if isinstance(value, int)), 8)
                _bound(len(owner) + owner.count("\t") * size)
        return super().call(context, obj, *args, **kwargs)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        _CHECKS[operator](left, right)
        return super().call_binop(context, operator, left, right)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if isinstance(obj, _BUILTIN) and callable(value) and attr not in _METHODS:
            return False
        return super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """Jinja's own safe `format`, with bounds on what it makes."""
        found = super().wrap_str_format(value)
        if found is None:
            return None

        @wraps(found)
        def bounded(*args: Any, **kwargs: Any) -> str:
            text = str(value.__self__)
            if _WIDE_FIELD.search(text):
                raise TemplateLimitError("it formats text with a width of more than two digits")
            _bound(len(text) + text.count("{") * _measure([args, kwargs]))
            return found(*args, **kwargs)

        return bounded


_GLOBALS = ("range", "namespace", "dict", "cycler", "joiner")
_BUILTIN = (str, bytes, int, float, list, tuple, dict, set, frozenset)
_METHODS = frozenset(
    (
        *("strip", "lstrip", "rstrip", "split", "rsplit", "splitlines", "partition", "rpartition"),
        *("removeprefix", "removesuffix", "replace", "join", "startswith", "endswith", "find", "rfind"),
        *("index", "rindex", "count", "lower", "upper", "title", "capitalize", "casefold", "swapcase"),
        *("isalnum", "isalpha", "isdecimal", "isdigit", "islower", "isnumeric", "isspace", "isupper"),
        *("isascii", "isidentifier", "isprintable", "istitle", "format", "format_map", "expandtabs"),
        *("ljust", "rjust", "center", "zfill", "is_integer", "bit_length"),
        *("items", "keys", "values", "get", "copy"),
        # these change their object, which the sandbox refuses with a better message than "undefined"
        *("append", "extend", "insert", "pop", "popitem", "remove", "update", "setdefault", "clear"),
        *("sort", "reverse", "add", "discard"),
    )
)
_FILTERS = (
    *("abs", "attr", "capitalize", "count", "d", "default", "dictsort", "first", "float", "groupby", "int"),
    *("items", "last", "length", "list", "lower", "map", "max", "min", "reject", "rejectattr", "reverse"),
    *("safe", "select", "selectattr", "sort", "sum", "title", "trim", "unique", "upper", "random"),
)
_TEXT_FILTERS = (
    *("e", "escape", "filesizeformat", "forceescape", "pprint", "striptags", "truncate", "urlencode"),
    *("urlize", "wordcount", "wordwrap", "xmlattr"),
)
"""Filters that make text of whatever they are given."""
_PADDING = ("ljust", "rjust", "center", "zfill")


def _check_add(left: Any, right: Any) -> None:
    if hasattr(left, "__len__") and hasattr(right, "__len__"):
        _bound(len(left) + len(right))


def _check_multiply(left: Any, right: Any) -> None:
    for value, times in ((left, right), (right, left)):
        if isinstance(times, int) and hasattr(value, "__len__"):
            _bound(len(value) * times)
    if isinstance(left, int) and isinstance(right, int):
        _check_bits(left.bit_length() + right.bit_length())


def _check_power(left: Any, right: Any) -> None:
    if isinstance(left, int) and isinstance(right, int):
        _check_bits(left.bit_length() * abs(right))


def _check_bits(bits: int) -> None:
    if bits > MAX_BITS:
        raise TemplateLimitError(f"it makes a number of more than {MAX_BITS} bits")


def _check_modulo(left: Any, right: Any) -> None:
    if isinstance(left, str | bytes):
        text = left if isinstance(left, str) else left.decode("latin-1")
        if _WIDE.search(text):
            raise TemplateLimitError("it formats text with a width of more than two digits")
        _bound(len(text) + text.count("%") * _measure(right))


_WIDE_FIELD = re.compile(r"\{[^{}]*:[^{}]*(\d{3}|\{)")
_WIDE = re.compile(r"%(\([^)]*\))?[-+ #0]*(\d\d?)?\.?(\d{3}|\*)")

_CHECKS: Mapping[str, Callable[[Any, Any], None]] = {
    "+": _check_add,
    "*": _check_multiply,
    "**": _check_power,
    "%": _check_modulo,
}


def _string(value: Any) -> str:
    _measure(value)
    return soft_str(value)


def _replace(value: Any, old: str, new: str, count: int | None = None) -> str:
    text, old, new = _string(value), str(old), str(new)
    times = text.count(old) if count is None or count < 0 else min(count, text.count(old))
    _bound(len(text) + times * max(len(new) - len(old), 0))
    return text.replace(old, new, times)


def _join(value: Iterable[Any], d: str = "") -> str:
    items = [_string(item) for item in value]
    _bound(sum(map(len, items)) + len(d) * len(items))
    return d.join(items)


def _indent(value: Any, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    text = _string(value)
    size = width if isinstance(width, int) else len(width)
    if size > MAX_INDENT:
        raise TemplateLimitError(f"it indents by more than {MAX_INDENT}")
    _bound(len(text) + size * (text.count("\n") + 1))
    return filters.do_indent(text, width, first, blank)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: Sequence[str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as it is: Jinja's own filter escapes for HTML, which models never saw."""
    _measure(value)
    if indent is not None and (not isinstance(indent, int) or indent > MAX_INDENT):
        raise TemplateLimitError(f"it indents by more than {MAX_INDENT}")
    pair = None if separators is None else (separators[0], separators[1])
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=pair, sort_keys=sort_keys)


def _format(value: str, *args: Any, **kwargs: Any) -> str:
    text = str(value)
    _check_modulo(text, kwargs or args)
    return text % (kwargs or args)


def _center(value: Any, width: int = 80) -> str:
    text = _string(value)
    _bound(len(text) + width)
    return text.center(width)


def _batch(value: Iterable[Any], linecount: int, fill_with: Any = None) -> Iterable[list[Any]]:
    _bound(linecount)
    return filters.do_batch(value, linecount, fill_with)


def _slice(value: Any, slices: int, fill_with: Any = None) -> Iterable[list[Any]]:
    _bound(slices)
    return filters.sync_do_slice(value, slices, fill_with)


def _round(value: float, precision: int = 0, method: Any = "common") -> float:
    _check_bits(4 * abs(precision))
    return filters.do_round(value, precision, method)


def _measured(function: Callable[..., Any]) -> Callable[..., Any]:
    """The filter, for values whose text is not too long."""
    place = 1 if hasattr(function, "jinja_pass_arg") else 0

    @wraps(function)
    def measured(*args: Any, **kwargs: Any) -> Any:
        _measure(args[place])
        return function(*args, **kwargs)

    return measured


_OWN_FILTERS: dict[str, Callable[..., Any]] = {
    **{name: _measured(filters.FILTERS[name]) for name in _TEXT_FILTERS},
    "batch": _batch,
    "center": _center,
    "slice": _slice,
    "round": _round,
    "format": _format,
    "string": _string,
    "replace": _replace,
    "join": _join,
    "indent": _indent,
    "tojson": _tojson,
}


def _raise_exception(message: object = "") -> NoReturn:
    raise TemplateError(str(message))


def _strftime_now(form: str) -> str:
    _bound(len(form) * _FORM_GROWTH)
    return datetime.now().strftime(form)
