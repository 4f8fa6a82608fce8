"""Time of work on a device: by CUDA events on a card, by the clock for the interpreter's work."""

import statistics
import time
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch

from engine.cuda_graphs import Recorded, Recorder, Work, cuda_recorder

Task = Callable[[], object]


class Stopwatch(ABC):
    """Times work that was queued on one device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    @property
    @abstractmethod
    def cache_bytes(self) -> int:
        """Of the device's second level cache: what is read again within so many bytes may come from there."""

    @property
    @abstractmethod
    def processors(self) -> int:
        """Multiprocessors."""

    @abstractmethod
    def recorder(self) -> Recorder:
        """What records work to be played again (`engine.cuda_graphs`)."""

    @abstractmethod
    def wait(self) -> None:
        """Until all queued work is done."""

    @abstractmethod
    def times(self, task: Task, repeats: int) -> list[float]:
        """Seconds on the device of each of some runs, queued one behind the other; none to warm up."""

    def median(self, task: Task, repeats: int) -> float:
        """The median of `times`, behind one run that does not count."""
        task()
        return statistics.median(self.times(task, repeats))

    def wall_seconds(self, task: Task) -> float:
        """Seconds of the clock for one run, from an idle device to an idle device."""
        self.wait()
        start = time.perf_counter()
        task()
        self.wait()
        return time.perf_counter() - start


class CudaStopwatch(Stopwatch):
    """For a card, which becomes the current one."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        torch.cuda.set_device(device)
        self._properties = torch.cuda.get_device_properties(device)

    @property
    def cache_bytes(self) -> int:
        """See `Stopwatch`."""
        return int(self._properties.L2_cache_size)

    @property
    def processors(self) -> int:
        """See `Stopwatch`."""
        return int(self._properties.multi_processor_count)

    def recorder(self) -> Recorder:
        """See `Stopwatch`."""
        return cuda_recorder()

    def wait(self) -> None:
        """See `Stopwatch`."""
        torch.cuda.synchronize(self.device)

    def times(self, task: Task, repeats: int) -> list[float]:
        """See `Stopwatch`."""
        # Each run has its own two events: what a host does between two runs is no time of the device.
        events = []
        for _ in range(repeats):
            start, stop = _event(), _event()
            start.record()
            task()
            stop.record()
            events.append((start, stop))
        self.wait()
        return [start.elapsed_time(stop) / 1e3 for start, stop in events]


class HostStopwatch(Stopwatch):
    """For Triton's interpreter, whose work is done when a launch returns."""

    @property
    def cache_bytes(self) -> int:
        """There is none."""
        return 0

    @property
    def processors(self) -> int:
        """One program runs at a time."""
        return 1

    def recorder(self) -> Recorder:
        """See `Stopwatch`."""
        return _keep

    def wait(self) -> None:
        """Nothing is queued."""

    def times(self, task: Task, repeats: int) -> list[float]:
        """See `Stopwatch`."""
        return [self.wall_seconds(task) for _ in range(repeats)]


def stopwatch(device: torch.device) -> Stopwatch:
    """That of a device."""
    return CudaStopwatch(device) if device.type == "cuda" else HostStopwatch(device)


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


def _keep(work: Work) -> Recorded:
    """Records as a card does: the work is repeated on the same tensors, its results go to the same places."""
    results = work()

    def play() -> None:
        for place, result in zip(results, work(), strict=True):
            place.copy_(result)

    return play, results
