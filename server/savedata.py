"""The save slots that clients keep on the server: KoboldCpp's `--savedatafile`.

The file is KoboldCpp's own: a JSON object from the slot's number to `title`, `format` and `data`. Knows
nothing of HTTP. Writing takes as long as the disk does, so callers on an event loop use a thread; any
number of threads may call.
"""

import json
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from engine.errors import ConfigError, NkatError, RequestError
from server.atomic_file import write_atomically

SLOTS = 12
"""Slots there are, 0 to 11, as in KoboldCpp."""
UNTITLED = "Untitled Save"
TITLE_LIMIT = 1000
"""Characters of the longest title and of the longest name of a format."""
DATA_LIMIT = 32 << 20
"""Bytes of UTF-8 of the largest save."""
FILE_LIMIT = 512 << 20
"""Bytes of the largest file."""


class SaveDataError(NkatError):
    """The disk did not take what was to be saved."""


@dataclass(frozen=True, slots=True)
class Save:
    """What one slot holds: a title for people, and data that only clients understand."""

    title: str
    format: str
    data: str


class SaveData:
    """The slots of one file. All of them are in memory; the file follows each change at once.

    Whatever happens, a process that is killed included, the file holds all slots as they were before a
    change or as they are after it. One server at a time: a second one on the same file overwrites what the
    first saved.
    """

    def __init__(self, path: Path, saves: Mapping[int, Save]) -> None:
        self._path = path
        self._saves = dict(saves)
        self._lock = threading.Lock()

    @classmethod
    def open(cls, path: Path) -> "SaveData":
        """The slots that `path` holds; a file that does not exist is made, with none.

        Raises `ConfigError` for a file that cannot be read or made, or that holds something else. Such a
        file is left as it is.
        """
        try:
            with path.open("rb") as file:
                raw = file.read(FILE_LIMIT + 1)
        except FileNotFoundError:
            saves: dict[int, Save] = {}
            try:
                write_atomically(path, _encoded(saves))
            except OSError as error:
                raise ConfigError(f"cannot make the file for saves {path}: {error.strerror}") from None
        except OSError as error:
            raise ConfigError(f"cannot read the file with saves {path}: {error.strerror}") from None
        else:
            saves = _decoded(raw, path)
        return cls(path, saves)

    def titles(self) -> list[str]:
        """The title of each slot in order, `SLOTS` of them; an empty one for an empty slot."""
        with self._lock:
            return [self._saves[slot].title if slot in self._saves else "" for slot in range(SLOTS)]

    def load(self, slot: int) -> Save | None:
        """What the slot holds; None for an empty slot and for one that there is not."""
        with self._lock:
            return self._saves.get(slot)

    def save(self, slot: int, save: Save) -> None:
        """Put `save` in the slot in place of what it held; a save without data empties it.

        Raises `RequestError` for a slot that there is not and for what is too long, `SaveDataError` when the
        disk is full or fails; then all slots are as they were.
        """
        if not 0 <= slot < SLOTS:
            raise RequestError(f"there is no slot {slot}; slots are 0 to {SLOTS - 1}")
        _check(save)
        with self._lock:
            saves = dict(self._saves)
            saves.pop(slot, None)
            if save.data:
                saves[slot] = save if save.title else Save(UNTITLED, save.format, save.data)
            if saves == self._saves:
                return
            raw = _encoded(saves)
            if len(raw) > FILE_LIMIT:
                raise RequestError(f"all saves together are larger than {FILE_LIMIT >> 20} MB; empty a slot")
            try:
                write_atomically(self._path, raw)
            except OSError as error:
                raise SaveDataError(f"cannot write the file with saves: {error.strerror}") from error
            self._saves = saves


def _check(save: Save) -> None:
    if len(save.title) > TITLE_LIMIT or len(save.format) > TITLE_LIMIT:
        raise RequestError(f"a title has at most {TITLE_LIMIT} characters")
    if len(save.data.encode("utf-8", "replace")) > DATA_LIMIT:
        raise RequestError(f"the story is too long: a save has at most {DATA_LIMIT >> 20} MB")


def _encoded(saves: Mapping[int, Save]) -> bytes:
    # In ASCII: half characters, which clients do send, have no UTF-8.
    return json.dumps({str(slot): asdict(save) for slot, save in sorted(saves.items())}).encode("ascii")


def _decoded(raw: bytes, path: Path) -> dict[int, Save]:
    if len(raw) > FILE_LIMIT:
        raise ConfigError(f"the file with saves {path} is larger than {FILE_LIMIT >> 20} MB")
    try:
        slots = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise _damaged(path, str(error)) from None
    if not isinstance(slots, dict):
        raise _damaged(path, "no JSON object")
    return {_slot(name, path): _save(name, fields, path) for name, fields in slots.items()}


def _slot(name: str, path: Path) -> int:
    slot = int(name) if name.isascii() and name.isdecimal() and len(name) <= len(str(SLOTS)) else SLOTS
    if slot >= SLOTS or name != str(slot):
        raise _damaged(path, f"slot {name[:10]!r}; slots are 0 to {SLOTS - 1}")
    return slot


def _save(name: str, fields: Any, path: Path) -> Save:
    match fields:
        case {"title": str(title), "format": str(form), "data": str(data)}:
            return Save(title, form, data)
    raise _damaged(path, f"slot {name} lacks a title, a format or data")


def _damaged(path: Path, why: str) -> ConfigError:
    return ConfigError(f"{path} is no file with saves ({why}); move it away or name another one")
