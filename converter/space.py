"""The room on disk that a job needs, found out before its work. Knows no torch."""

import shutil
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from converter.job import ConversionJob, Method
from engine.errors import ConfigError
from engine.gguf import GGUFFile
from engine.theta import RANKS

_HEADER = 1 << 16
"""Bytes for what a file says of theta: names, shapes, notes."""
_FLOAT = 4
_CHECKPOINT_PARTS = {Method.SVD: 0, Method.RESIDUAL: 1, Method.TRAIN: 3}
"""Numbers that a checkpoint has for each of the factors': itself, and what the optimiser keeps of it."""


def check_space(job: ConversionJob, base: GGUFFile, selected: Iterable[str]) -> None:
    """Raise `ConfigError` where the disks have no room for what the job will write.

    `selected`: the matrices that get theta. A file is there twice while it is replaced.
    """
    rank = max(RANKS) if job.optimize_rank else job.rank
    numbers = rank * sum(sum(base.tensors[name].shape) for name in selected)
    theta = numbers + _HEADER
    model = 0 if job.theta_only else sum(path.stat().st_size for path in base.paths)
    checkpoint = _CHECKPOINT_PARTS[job.method] * _FLOAT * numbers
    known = job.checkpoint.stat().st_size if job.checkpoint.exists() else 0
    needs: defaultdict[Path, int] = defaultdict(int)
    needs[job.output.parent] += max(0, checkpoint - known) + max(checkpoint, model + theta)
    if job.export_lora is not None:
        needs[job.export_lora.parent] += _FLOAT * numbers + _HEADER
    for folder, needed in _by_disk(needs).items():
        free = shutil.disk_usage(folder).free
        if free < needed:
            raise ConfigError(
                f"{folder}: the conversion writes {needed} bytes there, checkpoint included, but the disk "
                f"has only {free} left: make room, or choose another output"
            )


def _by_disk(needs: dict[Path, int]) -> dict[Path, int]:
    """The same for the first folder on each disk."""
    firsts: dict[int, Path] = {}
    total: defaultdict[Path, int] = defaultdict(int)
    for folder, needed in needs.items():
        total[firsts.setdefault(folder.stat().st_dev, folder)] += needed
    return total
