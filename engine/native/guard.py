"""Keeps the process alive where a mapped file is cut while somebody reads it. Knows no torch."""

import weakref
from mmap import mmap

import numpy as np

from engine.native.library import open_library


class MappingGuard:
    """A mapping of which reads that the system would end the process for find zeros, and are noted.

    Without the compiled library nothing is guarded, and nothing noted.
    """

    def __init__(self, data: mmap, file: int) -> None:
        """`file`: the mapped file's descriptor, which may be closed afterwards."""
        self._library = library = open_library()
        self._failed = False
        if library is None:
            return
        start = np.frombuffer(data, np.uint8).ctypes.data
        self._number: int = library.nkat_guard(start, len(data), file)
        # With the mapping itself, which arrays may keep alive for longer than its owner.
        self._let_go = weakref.finalize(data, library.nkat_unguard, self._number)

    @property
    def failed(self) -> bool:
        """Whether a read has failed, or the file was too short when the last of its matrices was packed."""
        if self._library is not None and self._let_go.alive:
            self._failed = bool(self._library.nkat_guard_failed(self._number))
        return self._failed

    def release(self) -> None:
        """Guard the mapping no longer: it is about to be closed."""
        if self._library is not None:
            self._failed = self.failed
            self._let_go()
