"""`nkat serve`: load a model and serve it until told to stop."""

import gc
import logging
import signal
import socket
from types import FrameType
from typing import NoReturn

from backend_selector.plain_text import plain
from engine.collector import without_collector
from engine.errors import ConfigError
from server.chat.adapters import load_adapter
from server.commands.start import choose_start
from server.console import Console
from server.logs import set_up_logging
from server.memory import limit_arenas
from server.password import key_of, readable_by_all
from server.savedata import SaveData
from server.settings import Settings
from server.story import read_story
from server.tls import check_certificate
from server.webui.assets import read_lite

_logger = logging.getLogger(__name__)


def serve(settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM. Raises `NkatError` for what is wrong before that.

    What can fail quickly comes first: the settings and their files, the port, the model file. Nobody can
    connect before the model is loaded.
    """
    limit_arenas()
    asked = settings.engine_config()
    check_files(settings)
    console = Console(quiet=settings.quiet)
    set_up_logging(quiet=settings.quiet, prompts=settings.debugmode)
    for name, reason in settings.ignored.items():
        _logger.warning("%s has no effect: %s", plain(name), reason)
    if settings.password_file is not None and readable_by_all(settings.password_file):
        name = plain(str(settings.password_file))
        _logger.warning("every user of this machine can read %s: chmod 600 makes it yours", name)
    end_on_signals()
    with bound_socket(settings.host, settings.port) as listener:
        start = choose_start(asked)
        for warning in start.choice.warnings:
            _logger.warning("%s", plain(warning))
        console.loading(start.config.model)
        # Hundreds of thousands of objects that all stay: to look through them takes a sixth of the start, and
        # later a tenth of a second at a time from those who wait for tokens.
        with without_collector():
            from engine.worker import EngineWorker  # imports torch
            from server.commands.web import run

            worker = EngineWorker.start(start.config)
            gc.freeze()
        host, port = listener.getsockname()[:2]
        try:
            run(
                worker,
                settings,
                listener,
                lambda: console.ready(start.file, start.choice, settings, host, port),
            )
        finally:
            worker.close()
            _logger.info("stopped")


def check_files(settings: Settings) -> None:
    """Raise `ConfigError` for a file beside the model that cannot be used.

    The parts of the server that need the files read them again: a slip in a name is told before the model is
    loaded, which may take minutes.
    """
    key_of(settings)
    if settings.ssl is not None:
        check_certificate(*settings.ssl)
    if settings.adapter:
        load_adapter(settings.adapter)
    if settings.lite is not None:
        read_lite(settings.lite)
    if settings.savedatafile is not None:
        SaveData.open(settings.savedatafile)
    read_story(settings.preloadstory)


def bound_socket(host: str, port: int) -> socket.socket:
    """A socket that holds the address without listening yet. Raises `ConfigError`."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError:
        raise ConfigError(f"unknown host {host!r}; --host takes an address of this machine") from None
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        reason = error.strerror or str(error)
        raise ConfigError(f"cannot listen on {host}:{port}: {reason}; choose another --port") from None
    return listener


def end_on_signals() -> None:
    """Let SIGINT and SIGTERM end the process even where its parent ignores or blocks them.

    Children of `trap '' INT`, of a script's background jobs and of some supervisors inherit that.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _terminated)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})


def _terminated(sig: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + sig)
