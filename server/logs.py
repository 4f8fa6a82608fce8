"""Logging, set up once at the entry: one line a message, with the id of the request it belongs to."""

import logging
import logging.config
from contextvars import ContextVar

request_id: ContextVar[str] = ContextVar("request_id", default="-")
"""Id of the HTTP request that the current task works for."""


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


class OnceLog:
    """Tells about fields that clients ask for in vain, each once: clients repeat them forever."""

    def __init__(self) -> None:
        self._told: set[str] = set()
        self._logger = logging.getLogger("server.unsupported")

    def tell(self, fields: dict[str, str]) -> None:
        """Log the fields that were not told yet, with their reasons."""
        for name in fields.keys() - self._told:
            self._told.add(name)
            self._logger.info("a client asks for %s, which has no effect: %s", name, fields[name])
