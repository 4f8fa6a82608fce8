"""Logging, set up once at the entry: one line a message, with the id of the request it belongs to."""

import logging
import logging.config
import math
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar

request_id: ContextVar[str] = ContextVar("request_id", default="-")
"""Id of the HTTP request that the current task works for."""

TOLD_ONCE = 256
"""Names that are remembered as told; of others, which clients may make up without end, nothing is said."""

RARE_SECONDS = 60.0
"""Between two log lines of the same trouble, where clients could bring it about without end."""


class _RequestId(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = request_id.get()
        return True


def set_up_logging(*, quiet: bool, prompts: bool) -> None:
    """Log to stderr, uvicorn's loggers included; `prompts` also shows what clients send."""
    level = "WARNING" if quiet else "INFO"
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "filters": {"request_id": {"()": _RequestId}},
            "formatters": {
                "line": {"format": "%(asctime)s %(levelname)-7s %(request_id)s %(name)s: %(message)s"}
            },
            "handlers": {
                "stderr": {
                    "class": "logging.StreamHandler",
                    "formatter": "line",
                    "filters": ["request_id"],
                }
            },
            "root": {"level": level, "handlers": ["stderr"]},
            "loggers": {
                "server.prompts": {"level": "DEBUG" if prompts else "WARNING"},
                "httpx": {"level": "WARNING"},
            },
        }
    )


class UnsupportedLog:
    """Tells about what clients ask for in vain, as warnings, which `quiet` does not silence."""

    def __init__(self) -> None:
        self._told: set[str] = set()
        self._logger = logging.getLogger("server.unsupported")

    def tell(self, fields: Mapping[str, str]) -> None:
        """Log the fields that were not told yet, with their reasons: clients repeat them forever."""
        new = [name for name in fields if name not in self._told][: TOLD_ONCE - len(self._told)]
        self._told.update(new)
        self.tell_each({name: fields[name] for name in new})

    def tell_each(self, fields: Mapping[str, str]) -> None:
        """Log the fields, with their reasons, whether they were told before or not."""
        for name, reason in fields.items():
            self._logger.warning("a client asks for %s, which has no effect: %s", name, reason)


class RareLog:
    """Logs what may happen very often: at once, and then once a minute with the number of times since."""

    def __init__(self, logger: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._logger = logger
        self._clock = clock
        self._silent_until = -math.inf
        self._left_out = 0

    def warning(self, message: str, *values: object) -> None:
        """Log the message, or count it."""
        now = self._clock()
        if now < self._silent_until:
            self._left_out += 1
            return
        if self._left_out:
            message, values = f"{message} (and %d times before)", (*values, self._left_out)
        self._silent_until = now + RARE_SECONDS
        self._left_out = 0
        self._logger.warning(message, *values)
