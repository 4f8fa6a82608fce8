"""Files that are replaced whole or not at all."""

import contextlib
import os
import shutil
import tempfile
from pathlib import Path


def write_atomically(path: Path, data: bytes) -> None:
    """Make `data` the content of the file `path`; who looks sees the old content or the new one.

    The bytes are on the disk before they take the name, so that this holds for a crash of the machine too.
    A link is followed, and a file that exists keeps its permissions; a new one is its owner's alone. Raises
    `OSError`, and then the old content stands.
    """
    path = path.resolve()
    # Next to the final place: a rename is atomic only within one file system.
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            shutil.copymode(path, name)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Put the new name itself on the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
