"""One part of `benchmarks.gpu` in a process of its own: a fault on the card, say, ends no other part.

python -m benchmarks.gpu.child, then the part and the settings as one line of JSON on stdin. Each line of
stdout is JSON: `{"figures": ...}` as they come, or at last `{"error": "one line"}`.
"""

import json
import os
import sys
import threading
import traceback
from typing import Any

from benchmarks.gpu.plan import Part
from benchmarks.gpu.settings import Settings


def main() -> None:
    """Run the part that stdin names."""
    said: dict[str, Any] = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Whatever a library prints is no answer: it goes to stderr.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(line: dict[str, Any]) -> None:
        out.write(json.dumps(line) + "\n")
        out.flush()

    try:
        from benchmarks.gpu.parts import run_part

        part = Part(said["kind"], tuple(said["arguments"]))
        for figures in run_part(part, Settings.from_json(said["settings"])):
            say({"figures": figures})
    except Exception as error:  # a part may end by anything; the run goes on and tells it
        traceback.print_exc()
        say({"error": error_line(error)})
    # A card that has failed may hang in the interpreter's own way out.
    out.close()
    sys.stderr.flush()
    os._exit(0)


def _end_with_parent() -> None:
    """End at once when nobody holds the other end of stdin any more."""
    sys.stdin.read()
    os._exit(1)


def error_line(error: BaseException) -> str:
    """What went wrong, in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:400]


if __name__ == "__main__":
    main()
