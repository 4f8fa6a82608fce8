"""What the rendering of chat templates may cost: all its limits, with their units.

`Limits` holds those of the processes, which the kernel enforces whatever a template does. The constants
are those of the sandbox inside, which names the cause, and of the messages between the two sides.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a pool of rendering processes."""

    cpu_seconds: float = 2.0
    """CPU time of one rendering: compilation and all attempts together."""
    wall_seconds: float = 30.0
    """Time of one rendering by the clock: for processes that cannot run, or that do not compute."""
    wait_seconds: float = 10.0
    """Time by the clock until one of the processes is free."""
    share_seconds: float = 0.05
    """Time by the clock until a further process is started: most renderings are done before it would be."""
    start_seconds: float = 60.0
    """Time by the clock until a new process is ready."""
    memory: int = 512 << 20
    """Bytes of address space of one process; an idle one has some 30 Mi."""
    processes: int = 2
    """Renderings at the same time."""


LIMITS = Limits()

MAX_SOURCE = 256 << 10
"""Characters of a template; the longest in use have some 30 000."""
MAX_REQUEST = 64 << 20
"""Bytes of what a process is sent."""
MAX_REPLY = 64 << 20
"""Bytes of what a process sends back: enough for `MAX_WRITTEN` characters in UTF-8."""
MAX_REASON = 4096
"""Bytes of an error that a process sends back."""

MAX_WRITTEN = 16 << 20
"""Characters. Text that passes through a macro counts twice, so a prompt may have 8 Mi at least."""
MAX_VALUE = 8 << 20
"""Characters or elements of one value."""
MAX_BITS = 4096
"""Bits of an integer."""
MAX_INDENT = 64
"""Characters of one indentation."""

CACHED_TEMPLATES = 4
"""Compiled templates that a process keeps."""
