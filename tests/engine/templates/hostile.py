"""Templates as somebody would write them who wants to stop a server or fill its memory."""

from collections.abc import Iterator, Mapping
from itertools import product

_LOOP = "{%% set ns = namespace(a=%s, b=%s) %%}{%% for i in range(%d) %%}%s{%% endfor %%}%s"

_NESTS: Mapping[str, tuple[str, str]] = {
    "lists": ("[1]", "[{0}, {0}]"),
    "tuples": ("(1,)", "({0}, {0})"),
    "dicts": ("{'x': 1}", "{{'x': {0}, 'y': {0}}}"),
}
_NEST_USES = {
    "compared": "{{ ns.a == ns.b }}",
    "compared unequal": "{{ ns.a != ns.b }}",
    "ordered": "{{ ns.a < ns.b }}",
    "searched": "{{ ns.a in [1, ns.b] }}",
    "sorted": "{{ [ns.a, ns.b] | sort }}",
    "made unique": "{{ [ns.a, ns.b] | unique | list }}",
    "taken the most of": "{{ [ns.a, ns.b] | max | length }}",
    "keys": "{{ {ns.a: 1, ns.b: 2} | length }}",
    "looked up": "{{ {}.get(ns.a) }}",
    "grouped": "{{ [{'k': ns.a}, {'k': ns.b}] | groupby('k') | list | length }}",
    "sorted as a dict": "{{ {'k': ns.a, 'l': ns.b} | dictsort(by='value') }}",
    "counted": "{{ [ns.a, ns.b].count(ns.b) }}",
    "indexed": "{{ [ns.a].index(ns.b) }}",
    "selected": "{{ [ns.a, ns.b] | select('eq', ns.b) | list | length }}",
    "rejected": "{{ [{'k': ns.a}] | rejectattr('k', 'in', [ns.b]) | list | length }}",
    "written": "{{ ns.a }}",
    "made text": "{{ (ns.a | string | length) }}",
    "made JSON": "{{ ns.a | tojson | length }}",
    "formatted": "{{ '%s %r' % (ns.a, ns.b) }}",
    "joined": "{{ [ns.a, ns.b] | join('-') }}",
    "joined by an operator": "{{ (ns.a ~ ns.b) | length }}",
    "in an error": "{{ raise_exception(ns.a) }}",
}

_STARTS = {"letters": "'a'", "notes": "'\U0001d11e'", "a list": "[1]", "a number": "7"}
_GROWTHS = {
    "added": "ns.a + ns.a",
    "joined": "ns.a ~ ns.a",
    "multiplied": "ns.a * 9",
    "multiplied by itself": "ns.a * (ns.a | int(9))",
    "raised": "ns.a ** 9",
    "replaced": "ns.a | string | replace('a', ns.a)",
    "replaced by a method": "ns.a.replace('a', ns.a)",
    "joined by itself": "(ns.a | string | list) | join(ns.a)",
    "joined by a method": "ns.a.join(['a', ns.a, 'b'])",
    "formatted": "'%s%s' % (ns.a, ns.a)",
    "formatted by a filter": "'%s%s' | format(ns.a, ns.a)",
    "indented": "(ns.a ~ '\\n' ~ ns.a) | indent(60)",
    "in JSON": "[ns.a, ns.a] | tojson",
    "in pairs": "[ns.a, ns.a] | map('string') | list",
    "reversed": "((ns.a | string) * 2) | reverse",
}

_BIG = "{% set x = 'aB <b>&\\n' * 1000000 %}"
_FILTER_CALLS = (
    *("wordwrap(1)", "urlize(9)", "xmlattr", "pprint", "center(99999999)", "batch(1) | list", "slice(99999)"),
    *("striptags", "truncate(9)", "filesizeformat", "random", "sum", "forceescape", "escape", "urlencode"),
    *("wordcount", "upper", "lower", "title", "capitalize", "trim", "reverse", "list | length", "length"),
    *("list | sort | length", "list | unique | list", "list | join", "list | max", "int", "float", "abs"),
    *("indent(64)", "tojson", "string | length", "replace('a', 'bb') | length", "default(1) | length"),
    *("list | map('upper') | join", "list | map('list') | list | length", "list | select | list | length"),
    *("list | groupby('x') | list", "list | batch(2) | list", "attr('__class__')", "map(attribute='a.b.c')"),
)
_METHODS = (
    *("split()", "split('a')", "rsplit('B')", "splitlines()", "partition('b')", "count('a')", "find('zz')"),
    *("strip('aB<b>& ')", "title()", "swapcase()", "casefold()", "center(99999999)", "zfill(99999999)"),
    *("encode()", "translate({})", "expandtabs(99999999)", "format()", "ljust(99999999)", "isalnum()"),
)

_COMPILED = {
    "parentheses": ("{{ ", "(", "1", ")", " }}"),
    "open parentheses": ("{{ ", "(", "", "", ""),
    "brackets": ("{{ ", "[", "1", "]", " }}"),
    "braces": ("{{ ", "{1: ", "1", "}", " }}"),
    "negations": ("{{ ", "not ", "1", "", " }}"),
    "signs": ("{{ ", "- ", "1", "", " }}"),
    "sums": ("{{ 1", " + 1", "", "", " }}"),
    "powers": ("{{ 9", " ** 9", "", "", " }}"),
    "products": ("{{ 9", " * 99", "", "", " }}"),
    "texts": ("{{ 'a'", " ~ 'a'", "", "", " }}"),
    "comparisons": ("{{ 1", " < 2", "", "", " }}"),
    "alternatives": ("{{ 1", " or 0", "", "", " }}"),
    "conditions": ("{{ 1", " if 1 else 2", "", "", " }}"),
    "attributes": ("{{ messages", ".a", "", "", " }}"),
    "items": ("{{ messages", "[0]", "", "", " }}"),
    "calls": ("{{ messages", "()", "", "", " }}"),
    "filters": ("{{ messages", " | list", "", "", " }}"),
    "tests": ("{{ 1", " is defined", "", "", " }}"),
    "ifs": ("", "{% if 1 %}", "x", "{% endif %}", ""),
    "else ifs": ("{% if 0 %}", "{% elif 0 %}", "", "", "{% endif %}"),
    "fors": ("", "{% for i in [1, 2, 3] %}", "x", "{% endfor %}", ""),
    "macros": ("", "{% macro f() %}", "x", "{% endmacro %}", ""),
    "block sets": ("", "{% set x %}", "x", "{% endset %}", ""),
    "generations": ("", "{% generation %}", "x", "{% endgeneration %}", ""),
    "digits": ("{{ ", "9", "", "", " }}"),
    "a literal": ("{{ '", "a", "", "", "' }}"),
    "escapes": ("{{ '", "\\", "", "", "' }}"),
    "comments": ("", "{#", "", "", ""),
    "spaces": ("{{", " ", "", "", ""),
    "line ends": ("{%-", "\n", "", "", ""),
    "a list": ("{{ [", "1,", "", "", "] | length }}"),
    "statements": ("", "{% set a = 1 %}", "", "", ""),
    "outputs": ("", "{{ a }}", "", "", ""),
    "braces of text": ("", "{ {", "", "", ""),
}

_WHOLE = {
    "a macro that calls itself": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "a macro that calls itself twice": (
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(90) }}"
    ),
    "macros that call each other": (
        "{% macro f(n) %}{{ g(n) }}{{ g(n) }}{% endmacro %}{% macro g(n) %}"
        "{% if n < 50 %}{{ f(n + 1) }}{% endif %}{% endmacro %}{{ f(0) }}"
    ),
    "a macro with a caller": (
        "{% macro f(n) %}{% if n %}{% call f(n - 1) %}{{ caller() }}{% endcall %}{% endif %}{% endmacro %}"
        "{% call f(900) %}x{% endcall %}"
    ),
    "a macro with many arguments": "{% macro f() %}{{ varargs }}{% endmacro %}{{ f(*range(99999)) }}" * 9,
    "a macro in a namespace": (
        "{% set ns = namespace(n=0) %}{% macro f() %}{% set ns.n = ns.n + 1 %}"
        "{{ ns.f() ~ ns.f() }}{% endmacro %}{% set ns.f = f %}{{ f() }}"
    ),
    "loops in loops": "{% for i in range(99999) %}" * 5 + "{% endfor %}" * 5,
    "loops that write": "{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}",
    "loops that filter": (
        "{% for i in range(99999) if i is even %}{% for j in range(99999) if j == i %}"
        "{% endfor %}{% endfor %}"
    ),
    "a recursive loop": "{% for x in [[1]] recursive %}{{ loop([x, x]) }}{% endfor %}",
    "a recursive loop that is wide": (
        "{% for x in [1, 2] recursive %}{% if loop.depth < 60 %}{{ loop([1, 2]) }}{% endif %}{% endfor %}"
    ),
    "a huge range": "{{ range(10 ** 18) | list }}",
    "a range of ranges": "{{ range(99999) | map('string') | map('list') | list | length }}" * 20,
    "a cycler": "{% set c = cycler(1, 2) %}{% for i in range(99999) %}{{ c.next() }}{% endfor %}",
    "a joiner": "{% set j = joiner('x' * 99999) %}{% for i in range(99999) %}{{ j() }}{% endfor %}",
    "lipsum": "{{ lipsum(n=99999) }}",
    "a template that includes itself": "{% include 'self' %}",
    "an import": "{% import 'os' as os %}{{ os.system('true') }}",
    "an extension of itself": "{% extends 'self' %}",
    "an extension of what is given": "{% extends messages %}",
    "a block in itself": "{% block a %}{{ self.a() }}{{ self.a() }}{% endblock %}",
    "a block with super": "{% block a %}{{ super() }}{% endblock %}",
    "two blocks in each other": (
        "{% block a %}{% block b %}{{ self.a() }}{% endblock %}{{ self.b() }}{% endblock %}"
    ),
    "bombs of JSON": (
        "{% set x = range(99999) | list %}{% for i in range(9999) %}{% set y = x | tojson %}{% endfor %}"
    ),
    "many values": (
        "{% set ns = namespace(l=[]) %}{% for i in range(9999) %}"
        "{% set ns.l = ns.l + [('x' ~ i) * 99999] %}{% endfor %}"
    ),
    "many lists": (
        "{% set ns = namespace(l=[]) %}{% for i in range(9999) %}"
        "{% set ns.l = ns.l + [range(99999) | list] %}{% endfor %}"
    ),
    "many values in a dict": (
        "{% set ns = namespace(l={}) %}{% for i in range(9999) %}"
        "{% set ns.l = dict(ns.l, **{'k' ~ i: 'x' * 999999 ~ i}) %}{% endfor %}"
    ),
    "many captured blocks": (
        "{% set ns = namespace(l=[]) %}{% for i in range(9999) %}{% set b %}{{ 'x' * 99999 }}{% endset %}"
        "{% set ns.l = [ns.l, b] %}{% endfor %}{{ ns.l | length }}"
    ),
    "a deep list that is let go": (
        "{% set ns = namespace(l=[]) %}{% for j in range(9) %}{% for i in range(99999) %}"
        "{% set ns.l = [ns.l] %}{% endfor %}{% endfor %}"
    ),
    "a deep list that is shown": (
        "{% set ns = namespace(l=[]) %}{% for i in range(99999) %}{% set ns.l = [ns.l] %}{% endfor %}"
        "{{ ns.l }}"
    ),
    "a deep list as JSON": (
        "{% set ns = namespace(l=[]) %}{% for i in range(99999) %}{% set ns.l = [ns.l] %}{% endfor %}"
        "{{ ns.l | tojson }}"
    ),
    "two deep lists that are compared": (
        "{% set ns = namespace(l=[], m=[]) %}{% for i in range(99999) %}{% set ns.l = [ns.l] %}"
        "{% set ns.m = [ns.m] %}{% endfor %}{{ ns.l == ns.m }}"
    ),
    "a deep tuple that is hashed": (
        "{% set ns = namespace(l=()) %}{% for i in range(99999) %}{% set ns.l = (ns.l,) %}{% endfor %}"
        "{{ {ns.l: 1} | length }}"
    ),
    "numbers to text": "{% for i in range(99999) %}{{ 9 ** 1200 }}{% endfor %}",
    "a number of many bits": "{{ 9 ** 9 ** 9 }}",
    "a shift by a product": "{{ 2 ** 4000 * 2 ** 4000 * 2 ** 4000 }}",
    "a division of large numbers": "{% for i in range(99999) %}{{ 9 ** 1200 // 7 % (3 ** 99) }}{% endfor %}",
    "a wide number": "{{ '%099999999d' % 1 }}",
    "a precise number": "{{ '%.99999999f' % 1 }}",
    "a star for a width": "{{ '%*d' % (99999999, 1) }}",
    "a width of another's": "{{ ('%' ~ '9' * 9 ~ 'd') | format(1) }}",
    "many conversions": "{{ ('%(a)s' * 99999) % {'a': 'x' * 99999} }}",
    "dates": "{{ strftime_now('%c' * 999999) }}",
    "dates of a loop": "{% for i in range(99999) %}{{ strftime_now('%c' * 999) }}{% endfor %}",
    "a needle in hay": (
        "{% set x = 'a' * 4000000 %}{% for i in range(999) %}{{ x.count('a' * 1999 ~ 'b') }}{% endfor %}"
    ),
    "a split of hay": "{% for i in range(9999) %}{% set x = ('a ' * 999999).split() %}{% endfor %}",
    "a class": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "globals": "{{ raise_exception.__globals__ }}",
    "globals by a filter": "{{ messages | map(attribute='__class__') | list }}",
    "code of a macro": "{% macro f() %}{% endmacro %}{{ f.__code__ }}{{ f._func.__globals__ }}",
    "the environment": "{{ self._TemplateReference__context.environment }}",
    "an attribute by format": "{{ '{0.__class__}'.format('') }}",
    "an error that is long": "{{ raise_exception('x' * 8000000) }}",
    "an error that is deep": "{% for i in range(9) %}{{ raise_exception(messages * 99999) }}{% endfor %}",
    "a division by nothing": "{{ 1 / 0 }}",
    "half a character": "{{ '\\ud800' * 99999 }}",
    "a whole reply": "{{ '\U0001d11e' * 8000000 }}",
    "two whole replies": "{{ '\U0001d11e' * 8000000 }}{{ '\U0001d11e' * 8000000 }}",
    "an undefined variable": "{{ nothing.at.all() }}",
    "a lookup of everything": "{% for i in range(99999) %}{{ messages[i] }}{% endfor %}",
    "nothing": "",
}


def hostile_templates() -> Iterator[tuple[str, str]]:
    """Names, all different, and sources."""
    for (nest, (start, more)), depth, (use, shown) in product(_NESTS.items(), (60, 5000), _NEST_USES.items()):
        body = "".join(f"{{% set ns.{name} = {more.format('ns.' + name)} %}}" for name in "ab")
        yield f"{nest} nested {depth} deep, {use}", _LOOP % (start, start, depth, body, shown)
    for (start, value), (growth, grown) in product(_STARTS.items(), _GROWTHS.items()):
        body = f"{{% set ns.a = {grown} %}}"
        yield f"{start} {growth}", _LOOP % (value, value, 99, body, "{{ ns.a | string | length }}")
    for call in _FILTER_CALLS:
        yield f"filter {call}", _BIG + "{% for i in range(999) %}{% set y = x | " + call + " %}{% endfor %}"
    for call in _METHODS:
        yield f"method {call}", _BIG + "{% for i in range(999) %}{% set y = x." + call + " %}{% endfor %}"
    for (name, (start, opening, middle, closing, end)), count in product(
        _COMPILED.items(), (90, 9_000, 240_000)
    ):
        times = min(count, (250_000 - len(start + middle + end)) // len(opening + closing))
        yield f"{count} {name}", start + opening * times + middle + closing * times + end
    yield from _WHOLE.items()
