"""Files that appear whole or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from typing import BinaryIO

from engine.errors import ConfigError


@contextmanager
def replacing(output: Path, size: int) -> Iterator[BinaryIO]:
    """A file of `size` bytes to be, that takes the place of `output` once it is complete and on disk.

    Until then it is `.NAME.partial` in the same folder. One that a killed process left behind is used anew.
    """
    temporary = output.with_name(f".{output.name}.partial")
    try:
        with _locked(temporary) as file:
            try:
                free = shutil.disk_usage(output.parent).free
                if free < size:
                    raise ConfigError(f"{output}: needs {size} bytes, but the disk has only {free} left")
                yield file
                file.flush()
                os.fsync(file.fileno())
                temporary.replace(output)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
        _sync_folder(output.parent)
    except OSError as error:
        raise ConfigError(f"{output}: cannot be written: {error.strerror or error}") from None


def _locked(path: Path) -> BinaryIO:
    """Open an empty file that no other process writes, and keep others from it while it is open.

    Between opening it and locking it, the process that had it may have renamed it to its final name: then
    it is no longer ours to empty, and the next try makes another.
    """
    while True:
        file = path.open("ab")
        try:
            flock(file, LOCK_EX | LOCK_NB)
            if path.exists() and os.path.samestat(path.stat(), os.fstat(file.fileno())):
                file.truncate(0)
                return file
        except BlockingIOError:
            file.close()
            raise ConfigError(f"{path}: another process is writing it") from None
        except BaseException:
            file.close()
            raise
        file.close()


def _sync_folder(folder: Path) -> None:
    """Put the renaming itself on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
