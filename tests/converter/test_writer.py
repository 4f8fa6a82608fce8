"""Theta on its way into files: what is written can be read, and a file is whole or not there."""

import hashlib
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from fcntl import flock
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter

import converter.atomic
from converter.writer import check_output, entry, write_gguf, write_nkat, write_sidecar
from engine.architectures import open_model
from engine.errors import ConfigError, ModelFileError, NkatError
from engine.gguf import GGUFFile, open_gguf
from engine.theta import Theta, base_sha256, open_theta, read_theta
from tests.converter.thetas import random_factors, random_theta, same_theta
from tests.support.gguf_files import Tensor, write_llama
from tests.support.gguf_files import write_gguf as write_reference

Q6 = {"blk.0.*": "Q6_K", "*": "Q4_1"}


@pytest.fixture(params=[None, 8], ids="alignment {}".format)
def base(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[GGUFFile]:
    metadata = {"general.alignment": request.param}
    with open_gguf(write_llama(tmp_path / "base.gguf", type=Q6, metadata=metadata)) as file:
        yield file


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[GGUFFile]:
    with open_gguf(write_llama(tmp_path / "plain.gguf", n_layers=2)) as file:
        yield file


@pytest.fixture
def theta(plain: GGUFFile) -> Theta:
    return random_theta(plain)


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix == ".partial")


def test_the_file_is_the_model_and_theta(base: GGUFFile, tmp_path: Path) -> None:
    theta = random_theta(base)
    output = tmp_path / "out.nkat"
    write_nkat(base, theta, output)
    with open_gguf(output) as written:
        assert written.version == 3
        assert same_theta(theta, read_theta(written, base.tensors))
        assert list(written.metadata.items())[: len(base.metadata)] == list(base.metadata.items())
        assert list(written.tensors)[: len(base.tensors)] == list(base.tensors)
        for name, info in base.tensors.items():
            assert (written.tensors[name].type, written.tensors[name].shape) == (info.type, info.shape)
            assert np.array_equal(written.data(name), base.data(name))
        for key in base.metadata:
            assert written.entry(key) == base.entry(key)
    assert leftovers(tmp_path) == []


def test_the_reference_reader_takes_it(base: GGUFFile, tmp_path: Path) -> None:
    theta = random_theta(base)
    write_nkat(base, theta, tmp_path / "out.nkat")
    reader = GGUFReader(tmp_path / "out.nkat")
    assert [tensor.name for tensor in reader.tensors[: len(base.tensors)]] == list(base.tensors)
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    for name, factors in theta.factors.items():
        u = tensors[f"{name}.theta_u"]
        assert u.tensor_type is GGMLQuantizationType.I8
        assert np.array_equal(u.data, factors.u)
        assert np.array_equal(tensors[f"{name}.theta_v"].data, factors.v)
        assert np.array_equal(tensors[f"{name}.theta_scale"].data, factors.scale)
    field = reader.get_field("nkat.report.ppl_after")
    assert field is not None
    assert field.contents() == 17.25


def test_tensors_follow_each_other_without_gaps_as_llama_cpp_asks(base: GGUFFile, tmp_path: Path) -> None:
    write_nkat(base, random_theta(base), tmp_path / "out.nkat")
    with open_gguf(tmp_path / "out.nkat") as written:
        infos = list(written.tensors.values())
        ends = [-(-(info.offset + info.n_bytes) // base.alignment) * base.alignment for info in infos]
        assert [info.offset for info in infos[1:]] == ends[:-1]
        assert (tmp_path / "out.nkat").stat().st_size == ends[-1]


def test_a_wide_alignment_is_kept(tmp_path: Path) -> None:
    writer = GGUFWriter(tmp_path / "base.gguf", "llama")
    writer.add_custom_alignment(4096)
    for name in ("a", "b"):
        writer.add_tensor(name, np.ones((3, 5), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with open_gguf(tmp_path / "base.gguf") as base:
        theta = random_theta(base, ["a", "b"])
        write_nkat(base, theta, tmp_path / "out.nkat")
    with open_gguf(tmp_path / "out.nkat") as written:
        assert same_theta(theta, open_theta(written))
        assert {info.offset % 4096 for info in written.tensors.values()} == {0}
    assert len(GGUFReader(tmp_path / "out.nkat").tensors) == 8


def test_the_written_file_is_a_model(plain: GGUFFile, theta: Theta, tmp_path: Path) -> None:
    write_nkat(plain, theta, tmp_path / "out.nkat")
    with open_model(tmp_path / "out.nkat").file as file:
        assert same_theta(theta, open_theta(file))


def test_the_same_input_gives_the_same_bytes(plain: GGUFFile, theta: Theta, tmp_path: Path) -> None:
    turned = replace(
        theta,
        factors=dict(reversed(list(theta.factors.items()))),
        notes=dict(reversed(list(theta.notes.items()))),
    )
    for name, value in (("one", theta), ("two", turned)):
        write_nkat(plain, value, tmp_path / f"{name}.nkat")
        write_sidecar(value, tmp_path / f"{name}.bin", "llama")
    assert (tmp_path / "one.nkat").read_bytes() == (tmp_path / "two.nkat").read_bytes()
    assert (tmp_path / "one.bin").read_bytes() == (tmp_path / "two.bin").read_bytes()


def test_new_theta_replaces_the_old(plain: GGUFFile, theta: Theta, tmp_path: Path) -> None:
    write_nkat(plain, theta, tmp_path / "old.nkat")
    with open_gguf(tmp_path / "old.nkat") as old:
        assert base_sha256(old) == plain.sha256()
        new = random_theta(old, ["blk.0.attn_k.weight"], rank=2, seed=1)
        write_nkat(old, new, tmp_path / "new.nkat")
    write_nkat(plain, new, tmp_path / "direct.nkat")
    assert (tmp_path / "new.nkat").read_bytes() == (tmp_path / "direct.nkat").read_bytes()


def test_a_split_model_becomes_one_file(tmp_path: Path) -> None:
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    for number in (1, 2):
        write_reference(
            tmp_path / f"model-{number:05}-of-00002.gguf",
            {"general.name": "halves", "split.no": number - 1, "split.count": 2, "split.tensors.count": 2},
            {f"{number}.weight": Tensor(number * values, GGMLQuantizationType.F32)},
        )
    with open_gguf(tmp_path / "model-00001-of-00002.gguf") as base:
        write_nkat(base, random_theta(base, ["2.weight"], rank=2), tmp_path / "out.nkat")
        with pytest.raises(ConfigError, match="input itself"):
            check_output(tmp_path / "model-00002-of-00002.gguf", base)
    with open_gguf(tmp_path / "out.nkat") as written:
        assert not any(key.startswith("split.") for key in written.metadata)
        assert written.metadata["general.name"] == "halves"
        assert [(written.dequantize(f"{number}.weight") == number * values).all() for number in (1, 2)]


def test_a_sidecar_holds_theta_alone(plain: GGUFFile, theta: Theta, tmp_path: Path) -> None:
    write_sidecar(theta, tmp_path / "theta_rank4.bin", "llama")
    with open_gguf(tmp_path / "theta_rank4.bin") as file:
        assert file.metadata["general.architecture"] == "llama"
        assert file.metadata["general.type"] == "nkat-theta"
        assert len(file.tensors) == 3 * len(theta.factors)
    assert same_theta(theta, open_theta(plain, tmp_path / "theta_rank4.bin"))
    assert len(GGUFReader(tmp_path / "theta_rank4.bin").tensors) == 3 * len(theta.factors)


def test_a_sidecar_fits_no_other_model(theta: Theta, tmp_path: Path) -> None:
    write_sidecar(theta, tmp_path / "theta.bin", "llama")
    with (
        open_gguf(write_llama(tmp_path / "other.gguf", seed=1)) as other,
        pytest.raises(ModelFileError, match=r"theta\.bin: was made for another model file"),
    ):
        open_theta(other, tmp_path / "theta.bin")


def test_a_sidecar_fits_the_nkat_file_of_its_model(plain: GGUFFile, theta: Theta, tmp_path: Path) -> None:
    new = random_theta(plain, seed=1)
    write_nkat(plain, theta, tmp_path / "model.nkat")
    write_sidecar(new, tmp_path / "theta.bin", "llama")
    with open_gguf(tmp_path / "model.nkat") as model:
        assert same_theta(new, open_theta(model, tmp_path / "theta.bin"))


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"rank": 3}, "rank 3"),
        ({"rank": 2}, "shapes"),
        ({"gamma": float("nan")}, "gamma"),
        ({"gamma": 1.5}, "gamma"),
        ({"base_sha256": ""}, "64 hexadecimal digits"),
        ({"notes": {"general.name": "x"}}, "general.name is no key"),
        ({"notes": {"nkat.report.list": [1]}}, "cannot hold"),
        ({"notes": {"nkat.report.large": 1 << 63}}, "cannot hold"),
        ({"factors": {"blk.9.attn_q.weight": random_factors((4, 4), 4)}}, "does not have"),
        ({"factors": {"blk.0.attn_q.weight": random_factors((64, 65), 4)}}, "shapes"),
        ({"factors": {"blk.0.attn_norm.weight": random_factors((64, 64), 4)}}, "no matrix"),
    ],
)
def test_bad_theta_is_not_written(
    plain: GGUFFile, theta: Theta, tmp_path: Path, changes: dict[str, object], fault: str
) -> None:
    with pytest.raises(NkatError, match=fault):
        write_nkat(plain, replace(theta, **changes), tmp_path / "out.nkat")  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.iterdir()] == ["plain.gguf"]


def test_theta_of_another_model_is_not_written(plain: GGUFFile, theta: Theta, tmp_path: Path) -> None:
    write_nkat(plain, theta, tmp_path / "old.nkat")
    with open_gguf(tmp_path / "old.nkat") as old, pytest.raises(ModelFileError, match="another model"):
        write_nkat(old, replace(theta, base_sha256="0" * 64), tmp_path / "out.nkat")


@pytest.mark.parametrize("link", [None, Path.symlink_to, Path.hardlink_to])
def test_the_input_is_no_output(plain: GGUFFile, theta: Theta, tmp_path: Path, link: object) -> None:
    output = plain.path if link is None else tmp_path / "link"
    if callable(link):
        link(output, plain.path)
    before = plain.path.read_bytes()
    with pytest.raises(ConfigError, match="input itself"):
        write_nkat(plain, theta, output)
    assert plain.path.read_bytes() == before


def test_a_folder_is_no_output(plain: GGUFFile, theta: Theta, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a regular file"):
        write_nkat(plain, theta, tmp_path)
    with pytest.raises(ConfigError, match="No such file"):
        write_nkat(plain, theta, tmp_path / "missing" / "out.nkat")


def test_a_full_disk_is_noticed_first(
    plain: GGUFFile, theta: Theta, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out.nkat").write_bytes(b"old")
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(ConfigError, match="only 1000 left"):
        write_nkat(plain, theta, tmp_path / "out.nkat")
    assert (tmp_path / "out.nkat").read_bytes() == b"old"
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), KeyboardInterrupt(), SystemExit(1)]
)
@pytest.mark.parametrize("at", ["os.fsync", "pathlib.Path.replace"])
def test_an_interrupt_leaves_the_old_file(
    plain: GGUFFile,
    theta: Theta,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    at: str,
) -> None:
    def interrupt(*_: object) -> None:
        assert leftovers(tmp_path) == [".out.nkat.partial"]
        raise error

    (tmp_path / "out.nkat").write_bytes(b"old")
    monkeypatch.setattr(at, interrupt)
    expected = ConfigError if isinstance(error, OSError) else type(error)
    with pytest.raises(expected):
        write_nkat(plain, theta, tmp_path / "out.nkat")
    assert (tmp_path / "out.nkat").read_bytes() == b"old"
    assert leftovers(tmp_path) == []


def test_what_a_killed_process_left_is_used_anew(plain: GGUFFile, theta: Theta, tmp_path: Path) -> None:
    (tmp_path / ".out.nkat.partial").write_bytes(b"half" * 1_000_000)
    write_nkat(plain, theta, tmp_path / "out.nkat")
    assert leftovers(tmp_path) == []
    with open_gguf(tmp_path / "out.nkat") as written:
        assert same_theta(theta, read_theta(written, plain.tensors))


def test_two_writers_do_not_mix(plain: GGUFFile, theta: Theta, tmp_path: Path) -> None:
    output = tmp_path / "out.nkat"
    with converter.atomic.replacing(output, 5) as file:
        with pytest.raises(ConfigError, match="another process"):
            write_nkat(plain, theta, output)
        file.write(b"first")
    assert output.read_bytes() == b"first"


def test_a_partial_file_that_became_the_output_is_not_emptied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process completes its file between our opening it and our locking it."""
    output, partial = tmp_path / "out.nkat", tmp_path / ".out.nkat.partial"
    partial.write_bytes(b"complete")

    def late_lock(file: BinaryIO, operation: int) -> None:
        if not output.exists():
            partial.rename(output)
        flock(file, operation)

    monkeypatch.setattr("converter.atomic.flock", late_lock)
    with converter.atomic._locked(partial):
        assert output.read_bytes() == b"complete"


KILLED = """
import sys
from dataclasses import replace
from pathlib import Path
from converter.writer import write_nkat
from engine.gguf import open_gguf
from tests.converter.thetas import random_theta

folder = Path(sys.argv[1])
with open_gguf(folder / "base.gguf") as base:
    theta = random_theta(base, ["big"])
    print("ready", flush=True)
    while True:
        for gamma in (0.9, 0.97):
            write_nkat(base, replace(theta, gamma=gamma), folder / "out.nkat")
"""


def test_a_killed_process_leaves_a_whole_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    big = Tensor(rng.integers(-128, 128, (5000, 10_000), np.int8), GGMLQuantizationType.I8)
    write_reference(tmp_path / "base.gguf", {}, {"big": big})
    output = tmp_path / "out.nkat"
    whole = set()
    with open_gguf(tmp_path / "base.gguf") as base:
        for gamma in (0.9, 0.97):
            write_nkat(base, random_theta(base, ["big"], gamma=gamma), output)
            whole.add(hashlib.sha256(output.read_bytes()).digest())
    assert len(whole) == 2
    seen_partial = False
    for _ in range(6):
        with subprocess.Popen(
            [sys.executable, "-c", KILLED, str(tmp_path)],
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            time.sleep(rng.uniform(0, 0.3))
            process.kill()
        assert hashlib.sha256(output.read_bytes()).digest() in whole
        assert leftovers(tmp_path) in ([], [".out.nkat.partial"])
        seen_partial |= bool(leftovers(tmp_path))
    assert seen_partial, "no kill hit a write: the test shows nothing"
    with open_gguf(tmp_path / "base.gguf") as base:
        write_nkat(base, random_theta(base, ["big"]), output)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base.gguf", "out.nkat"]


def test_entries_keep_their_types(tmp_path: Path) -> None:
    values = {"s": "é", "b": True, "i": -5, "f": 0.1, "f32": np.float32(0.25)}
    write_gguf(tmp_path / "x.gguf", [entry(key, value) for key, value in values.items()], [])
    with open_gguf(tmp_path / "x.gguf") as file:
        assert file.metadata == {"s": "é", "b": True, "i": -5, "f": 0.1, "f32": 0.25}
        assert type(file.metadata["b"]) is bool
