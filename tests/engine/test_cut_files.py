"""Files that are cut while they are read: one line, and no end of the process."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from engine import loading
from engine.architectures import ModelFile, open_model
from engine.config import EngineConfig
from engine.engine import Engine
from engine.errors import ModelFileError
from engine.gguf import GGUFFile, open_gguf
from engine.kernels.native import NativeKernels
from engine.kernels.reference import ReferenceKernels
from engine.models import Loader, Model, load_model
from engine.native import native_kernels
from tests.engine.driving import request
from tests.support.gguf_files import write_llama
from tests.support.kernels import ALL

pytestmark = pytest.mark.skipif(not native_kernels(), reason="the native library is not built")

CUT = "was cut or could not be read while it was loaded; copy or download it again"
PAGE = os.sysconf("SC_PAGESIZE")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_llama(tmp_path / "x.gguf", type="Q8_0", n_embd=256, n_layers=3, tied=False)


def names(file: GGUFFile) -> list[str]:
    return sorted(file.tensors, key=lambda name: file.tensors[name].offset)


class TestFile:
    """Reads by Python and numpy."""

    @pytest.mark.parametrize("left", [0, 1, PAGE, 3 * PAGE + 5])
    def test_what_is_gone_is_zeros(self, path: Path, left: int) -> None:
        with open_gguf(path) as file:
            last = names(file)[-1]
            os.truncate(path, left)
            assert not file.data(last).any()
            with pytest.raises(ModelFileError) as caught:
                file.check_whole()
            assert str(caught.value).startswith(f"{path}: {CUT}")
            with pytest.raises(ModelFileError, match=CUT):
                file.check_reads()

    def test_within_the_last_page_no_signal_comes(self, path: Path) -> None:
        os.truncate(path, path.stat().st_size + PAGE)  # so that the model's data do not end with the mapping
        with open_gguf(path) as file:
            last = file.tensors[names(file)[-1]]
            os.truncate(path, last.offset + last.n_bytes - 1)
            with pytest.raises(ModelFileError, match=CUT):
                file.check_whole()

    def test_a_file_that_has_grown_again(self, path: Path) -> None:
        whole = path.read_bytes()
        with open_gguf(path) as file:
            os.truncate(path, 0)
            assert not file.data(names(file)[-1]).any()
            path.write_bytes(whole)
            with pytest.raises(ModelFileError, match=CUT):
                file.check_whole()

    def test_the_sum_of_a_file(self, path: Path) -> None:
        with open_gguf(path) as file:
            os.truncate(path, PAGE)
            with pytest.raises(ModelFileError, match=CUT):
                file.sha256()

    def test_others_are_none_of_its_business(self, path: Path, tmp_path: Path) -> None:
        other = write_llama(tmp_path / "other.gguf")
        with open_gguf(path) as file, open_gguf(other) as second:
            os.truncate(path, 0)
            assert not file.data(names(file)[-1]).any()
            second.check_whole()
            assert second.data("token_embd.weight").any()

    def test_views_are_guarded_as_long_as_they_live(self, path: Path) -> None:
        file = open_gguf(path)
        data = file.data(names(file)[-1])
        file.close()
        os.truncate(path, 0)
        assert not data.any()

    def test_many_mappings_one_after_another(self, path: Path) -> None:
        for _ in range(3000):
            open_gguf(path).close()
        with open_gguf(path) as file:
            os.truncate(path, 0)
            assert not file.data(names(file)[-1]).any()


class TestLoading:
    """Models."""

    @pytest.mark.parametrize("kernels", ALL)
    @pytest.mark.parametrize("when", ["before", "after"])
    def test_while_it_is_loaded(
        self, path: Path, kernels: str, when: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def with_a_cut(model: ModelFile, load: Loader, positions: int) -> Model:
            if when == "before":
                os.truncate(path, model.tensors["blk.1.attn_q.weight"].offset)
            loaded = load_model(model, load, positions)
            if when == "after":
                os.truncate(path, path.stat().st_size - 1)
            return loaded

        monkeypatch.setattr(loading, "load_model", with_a_cut)
        with pytest.raises(ModelFileError, match=f"x.gguf: {CUT}"):
            Engine.load(EngineConfig(path, kernels=kernels))

    @pytest.mark.parametrize("threads", [1, 2, 4])
    def test_while_it_is_packed(self, path: Path, threads: int) -> None:
        file = open_model(path)
        os.truncate(path, file.tensors["blk.1.attn_q.weight"].offset)
        kernels = NativeKernels(ALL[0], threads)
        load = Loader(file, kernels)
        for number in range(3):
            load.matrix(f"blk.{number}.ffn_up")
        kernels.settle()
        with pytest.raises(ModelFileError, match=CUT):
            file.file.check_reads()

    @pytest.mark.parametrize("wait", [True, False])
    def test_what_is_computed_of_it_does_not_count(self, path: Path, wait: bool) -> None:
        file = open_model(path)
        kernels = NativeKernels(ALL[0], 2)
        weight = Loader(file, kernels).matrix("output")
        os.truncate(path, 0)
        weight = Loader(file, kernels).matrix("blk.2.ffn_up")
        if wait:
            kernels.settle()

        def compute() -> None:
            kernels.when_settled(file.file.check_reads, file.file.check_whole)
            kernels.linear(torch.ones(1, 256), weight)

        with pytest.raises(ModelFileError, match=CUT):
            compute()

    @pytest.mark.parametrize("kernels", ALL)
    def test_afterwards_it_is_no_matter(self, path: Path, kernels: str) -> None:
        def reply() -> tuple[int, ...]:
            engine.add(engine.prepare(request("x", [5, 6, 7], 4, ignore_eos=True)))
            tokens: tuple[int, ...] = ()
            while engine.has_work:
                tokens += sum((event.token_ids for event in engine.step()), ())
            return tokens

        engine = Engine.load(EngineConfig(path, kernels=kernels))
        engine.kernels.settle()
        before = reply()
        os.truncate(path, 0)
        assert reply() == before
        assert len(before) == 4
        assert not mapped(path)

    def test_cut_between_the_last_read_and_the_first_step(self, path: Path) -> None:
        engine = Engine.load(EngineConfig(path, kernels=ALL[0]))
        engine.kernels.settle()
        os.truncate(path, 0)
        engine.add(engine.prepare(request("x", [5, 6, 7], 4)))
        while engine.has_work:
            engine.step()

    def test_matrices_that_stay_in_the_file(self, path: Path) -> None:
        file = open_model(path)
        kernels = ReferenceKernels(torch.device("cpu"), dense_bytes=0)
        load = Loader(file, kernels)
        weight = load.matrix("blk.2.ffn_up")
        kernels.when_settled(pytest.fail, file.file.check_whole)
        x = torch.from_numpy(np.ones((1, 256), np.float32))
        assert kernels.linear(x, weight).isfinite().all()
        os.truncate(path, 0)
        with pytest.raises(ModelFileError, match=CUT):
            kernels.linear(x, weight)


def mapped(path: Path) -> bool:
    return str(path) in Path("/proc/self/maps").read_text()


def test_a_signal_of_others_is_left_to_them(tmp_path: Path) -> None:
    check_in_child: Callable[[], int] = os.fork
    child = check_in_child()
    if child == 0:
        try:
            import ctypes
            import mmap

            other = tmp_path / "other"
            other.write_bytes(bytes(2 * PAGE))
            open_gguf(write_llama(tmp_path / "x.gguf"))
            with other.open("rb") as stream:
                data = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
            os.truncate(other, 0)
            import faulthandler

            faulthandler.disable()
            ctypes.string_at(np.frombuffer(data, np.uint8).ctypes.data, 1)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
