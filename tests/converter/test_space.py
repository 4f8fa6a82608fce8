"""Disks without the room that a conversion needs: found out before its work."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from converter.conversion import convert
from converter.job import Method
from engine.errors import ConfigError
from tests.converter.jobs import Bench, ignore

KINDS: dict[str, dict[str, Any]] = {
    "train": {"method": Method.TRAIN, "steps": 2},
    "svd": {"method": Method.SVD},
    "sidecar": {"method": Method.TRAIN, "steps": 2, "theta_only": True},
}


def never(stage: str, done: int, total: int, text: str) -> None:
    raise AssertionError("the work has begun")


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_found_out_before_the_work(
    bench: Bench, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    free = 0
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=free))
    lora = tmp_path / "out.lora"
    job = bench.job(tmp_path / "out.nkat", export_lora=lora, **KINDS[kind])
    with pytest.raises(ConfigError, match=r"the disk has only 0 left: make room, or choose") as caught:
        convert(job, never)
    assert "\n" not in str(caught.value)
    needed = re.search(r"writes (\d+) bytes", str(caught.value))
    assert needed is not None
    free = int(needed[1]) - 1
    with pytest.raises(ConfigError, match=f"has only {free} left"):
        convert(job, never)
    assert list(tmp_path.iterdir()) == []
    free = int(needed[1])
    convert(job, ignore)
    written = job.output.stat().st_size + lora.stat().st_size
    assert written <= free < 3 * written + 2**18


def test_a_checkpoint_has_its_room_already(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stop(Exception):  # noqa: N818
        pass

    def stop(stage: str, done: int, total: int, text: str) -> None:
        if stage == "write":
            raise Stop

    job = bench.job(tmp_path / "out.nkat", method=Method.TRAIN, steps=2)
    with pytest.raises(Stop):
        convert(job, stop)
    assert job.checkpoint.is_file()
    usage = shutil.disk_usage(tmp_path)._replace(free=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)

    def needed(resume: bool) -> int:
        path = job.output if resume else tmp_path / "other.nkat"
        with pytest.raises(ConfigError, match="the conversion writes") as caught:
            convert(bench.job(path, method=Method.TRAIN, steps=2, resume=resume), never)
        found = re.search(r"writes (\d+) bytes", str(caught.value))
        assert found is not None
        return int(found[1])

    assert needed(resume=True) < needed(resume=False)
