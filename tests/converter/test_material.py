"""Each window of a text serves one purpose."""

from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest
import torch

from converter.job import Method
from converter.material import Material
from engine.errors import RequestError
from engine.gguf import open_gguf
from engine.text import BUILT_IN
from engine.tokenizer import Tokenizer
from tests.converter.jobs import Bench


@pytest.fixture
def words(bench: Bench) -> Tokenizer:
    with open_gguf(bench.base) as file:
        return Tokenizer.from_metadata(file.metadata)


def test_no_window_is_in_two_of_them(bench: Bench, words: Tokenizer, tmp_path: Path) -> None:
    text = tmp_path / "numbers.txt"
    text.write_text(" ".join(map(str, range(2000))))  # no two windows of it are alike
    job = bench.job(
        tmp_path / "out.nkat", calibration=(text,), evaluate=True, optimize_rank=True, choosing_windows=3
    )
    material = Material.gather(job, words)
    held_out, other = material.reports
    parts = [material.calibration.windows, material.choosing.windows, held_out.windows]
    assert [len(part) for part in parts[1:]] == [3, 2]
    for one, two in combinations([{tuple(window.tolist()) for window in part} for part in parts], 2):
        assert not one & two
    assert torch.equal(
        torch.cat(parts),
        torch.tensor(words.encode(text.read_text()))[: 32 * sum(map(len, parts))].view(-1, 32),
    )
    assert (held_out.name, other.name) == ("numbers.txt, held out", BUILT_IN)
    assert len(other.windows) == 2


def test_a_text_to_report_on_leaves_the_other_whole(bench: Bench, words: Tokenizer, tmp_path: Path) -> None:
    own = tmp_path / "own.txt"
    own.write_text("hello world " * 100)
    job = bench.job(tmp_path / "out.nkat", eval_text=own, evaluate=True)
    material = Material.gather(job, words)
    assert [sample.name for sample in material.reports] == ["own.txt", BUILT_IN]
    whole = Material.gather(replace(job, evaluate=False), words)
    assert not whole.reports
    assert torch.equal(material.calibration.windows, whole.calibration.windows)
    assert not len(whole.choosing.windows)


def test_without_a_text_prose_makes_theta_and_code_is_the_other_kind(
    bench: Bench, words: Tokenizer, tmp_path: Path
) -> None:
    material = Material.gather(bench.job(tmp_path / "out.nkat", calibration=(), evaluate=True), words)
    assert material.calibration.name == BUILT_IN
    assert material.reports[1].name.startswith("source code of argparse")


def test_residual_takes_so_many_windows_and_no_more(bench: Bench, words: Tokenizer, tmp_path: Path) -> None:
    job = bench.job(tmp_path / "out.nkat", reference=bench.reference, windows=3)
    assert len(Material.gather(replace(job, method=Method.RESIDUAL), words).calibration.windows) == 3
    assert len(Material.gather(job, words).calibration.windows) > 3


def test_texts_that_cannot_be_read(bench: Bench, words: Tokenizer, tmp_path: Path) -> None:
    job = bench.job(tmp_path / "out.nkat")
    with pytest.raises(RequestError, match=r"cannot read .*missing\.txt: No such file"):
        Material.gather(replace(job, calibration=(tmp_path / "missing.txt",)), words)
    bad = tmp_path / "bad.txt"
    bad.write_bytes(b"abc\xff")
    with pytest.raises(RequestError, match="not UTF-8 text"):
        Material.gather(replace(job, eval_text=bad, evaluate=True), words)
