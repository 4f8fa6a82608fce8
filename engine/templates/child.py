"""The process that renders chat templates: reads requests from stdin and writes replies to stdout.

It starts with the interpreter's own folders and those of Jinja alone (`process`), confines itself before it
reads anything of a stranger's, and ends when stdin does. Its owner ends it when it exceeds its limits; for
an owner that has ended, or cannot run, a timer of the kernel counts the CPU time while a template is compiled
and rendered, and ends the process in C code as anywhere else.
"""

import json
import math
import os
import resource
import signal
import sys
import time
from functools import lru_cache
from typing import Any

from jinja2 import Template

from engine.templates import wire
from engine.templates.forms import forms, is_faithful
from engine.templates.limits import CACHED_TEMPLATES, MAX_REPLY, MAX_REQUEST
from engine.templates.orders import orders
from engine.templates.sandbox import TemplateLimitError, compile_template, render_template
from engine.templates.wire import Kind

_REASON = 200
"""Characters of an error's text."""
_REHEARSAL = (
    "{% for m in messages %}{{ m | tojson }}{{ m | pprint }}{{ '{}'.format(strftime_now('%c')) }}"
    "{{ '&lt;' | striptags | urlize | wordwrap(1) }}"
    "{{ raise_exception('x') }}{% endfor %}"
)


class BrokenTemplateError(Exception):
    """A template does not compile."""


def main() -> None:
    """Serve requests until stdin ends. The arguments are bytes of memory and seconds of CPU time."""
    memory, cpu_seconds = int(sys.argv[1]), float(sys.argv[2])
    _rehearse()
    _confine(memory)
    _send(Kind.READY, b"")
    while True:
        request = _receive()
        _limit_cpu(cpu_seconds)
        kind, body = _answer(request)
        signal.setitimer(signal.ITIMER_PROF, 0)
        _send(kind, body)


def _rehearse() -> None:
    """Use once what loads modules or files later, when no file can be opened."""
    time.localtime()
    request = {"source": _REHEARSAL, "messages": [{"role": "user", "content": "é\ud800"}], "variables": {}}
    _answer(wire.encode(json.dumps(request)))


def _confine(memory: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGPROF, signal.SIGXCPU, signal.SIGTERM, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for limit, most in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_NOFILE, 3),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(limit)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(limit, (most, most))


def _limit_cpu(seconds: float) -> None:
    """End the process after about so much CPU time: by the timer, and by a limit of whole seconds."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    most = math.ceil(time.process_time() + seconds) + 1
    resource.setrlimit(
        resource.RLIMIT_CPU, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard)
    )


def _answer(request: bytes) -> tuple[Kind, bytes]:
    try:
        asked = json.loads(wire.decode(request))
        return _rendered(asked["source"], asked["messages"], asked["variables"])
    except BrokenTemplateError as error:
        return Kind.BROKEN, wire.encode(str(error))
    except TemplateLimitError as error:
        return Kind.STOPPED, _line(error)
    except MemoryError:
        return Kind.MEMORY, b""
    # the template's code may raise anything
    except Exception as error:
        return Kind.REFUSED, _line(error)


def _rendered(source: str, messages: list[dict[str, Any]], variables: dict[str, Any]) -> tuple[Kind, bytes]:
    template = _compiled(source)
    refusal: Exception | None = None
    for order in orders(messages):
        found: str | None = None
        for form in forms(order, source):
            try:
                text = render_template(template, {**variables, "messages": form})
            except (TemplateLimitError, MemoryError):
                raise
            except Exception as error:
                refusal = refusal or error
                continue
            if is_faithful(text, form):
                return Kind.TEXT, _whole(text)
            found = text if found is None else found
        if found is not None:
            return Kind.TEXT, _whole(found)
    assert refusal is not None
    raise refusal


def _whole(text: str) -> bytes:
    encoded = wire.encode(text)
    if len(encoded) > MAX_REPLY:
        raise TemplateLimitError(f"it writes more than {MAX_REPLY} bytes")
    return encoded


@lru_cache(CACHED_TEMPLATES)
def _compiled(source: str) -> Template:
    try:
        return compile_template(source)
    # a hostile source may break Jinja or Python's own compiler in any way it likes
    except Exception as error:
        raise BrokenTemplateError(_line(error).decode(errors="replace")) from None


def _line(error: Exception) -> bytes:
    """The error's text, shortened: even to make the whole of it may cost too much."""
    return wire.encode(" ".join(str(error)[: 8 * _REASON].split())[:_REASON] or type(error).__name__)


def _receive() -> bytes:
    header = _read(wire.HEADER.size)
    kind, size = wire.unpack_header(header)
    if kind is not Kind.REQUEST or size > MAX_REQUEST:
        raise wire.WireError("that is no request")
    return _read(size)


def _read(size: int) -> bytes:
    parts = []
    while size > 0:
        part = os.read(0, min(size, 1 << 20))
        if not part:
            sys.exit()
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _send(kind: Kind, body: bytes) -> None:
    message = memoryview(wire.pack(kind, body))
    while message:
        message = message[os.write(1, message) :]
