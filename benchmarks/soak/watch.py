"""What a process holds: resident memory, threads, descriptors. Linux alone."""

import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import linear_regression

_INTERVAL_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Sample:
    """One look: seconds since the first, MB of resident memory, and counts."""

    seconds: float
    rss_mb: float
    threads: int
    descriptors: int


class Watch:
    """Looks at a process twice a second, in a thread. A context manager."""

    def __init__(self, pid: int) -> None:
        self._folder = Path("/proc", str(pid))
        self._started = time.monotonic()
        self._ended = threading.Event()
        self.samples: list[Sample] = [self.look()]
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def look(self) -> Sample:
        """The process now. Raises OSError once it has ended."""
        pages = int((self._folder / "statm").read_text().split()[1])
        return Sample(
            time.monotonic() - self._started,
            pages * os.sysconf("SC_PAGE_SIZE") / 1e6,
            len(os.listdir(self._folder / "task")),
            len(os.listdir(self._folder / "fd")),
        )

    def after(self, seconds: float) -> list[Sample]:
        """The samples from then on."""
        return [sample for sample in self.samples if sample.seconds >= seconds]

    def _run(self) -> None:
        while not self._ended.wait(_INTERVAL_SECONDS):
            try:
                self.samples.append(self.look())
            except OSError:
                return


def slope_per_minute(samples: list[Sample]) -> float:
    """MB that resident memory grows by in a minute: the slope of the least squares."""
    if len(samples) < 2:
        return 0.0
    slope, _ = linear_regression([one.seconds for one in samples], [one.rss_mb for one in samples])
    return slope * 60
