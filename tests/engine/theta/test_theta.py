"""Reading theta: what is right, and every way in which a file may lie, each with one line for its user."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGMLQuantizationType

from engine.errors import ModelFileError
from engine.gguf import open_gguf
from engine.theta import open_theta
from tests.support.gguf_files import Tensor, write_gguf

M, N, RANK = 6, 10, 4
BASE = "5a" * 32
X = "x.weight"

KEYS: dict[str, Any] = {
    "nkat.version": 1,
    "nkat.theta.rank": RANK,
    "nkat.theta.gamma": 0.5,
    "nkat.theta.method": "train",
    "nkat.theta.tensor_count": 1,
    "nkat.base.sha256": BASE,
    "nkat.calibration.steps": 50,
    "nkat.report.ppl_after": 17.25,
}


def i8(*shape: int) -> Tensor:
    values = np.random.default_rng(0).integers(-127, 128, shape, np.int8)
    return Tensor(values, GGMLQuantizationType.I8)


def f32(*values: float) -> Tensor:
    return Tensor(np.array(values, np.float32), GGMLQuantizationType.F32)


SCALES = (1.0, 0.5, 0.25, 0.0)
THETA = {f"{X}.theta_u": i8(M, RANK), f"{X}.theta_v": i8(N, RANK), f"{X}.theta_scale": f32(*SCALES)}
MODEL = {X: Tensor(np.ones((M, N), np.float32), GGMLQuantizationType.F32), "norm.weight": f32(1, 1)}


def write(
    path: Path, keys: dict[str, Any] | None = None, tensors: dict[str, Tensor | None] | None = None
) -> Path:
    """A model with theta, some keys and tensors replaced, those that are None left out."""
    merged: dict[str, Tensor | None] = {**MODEL, **THETA, **(tensors or {})}
    kept = {name: tensor for name, tensor in merged.items() if tensor is not None}
    return write_gguf(path, KEYS | (keys or {}), kept)


def test_what_the_file_says_is_read(tmp_path: Path) -> None:
    with open_gguf(write(tmp_path / "model.nkat")) as file:
        theta = open_theta(file)
    assert theta is not None
    assert (theta.rank, theta.gamma, theta.method, theta.base_sha256) == (RANK, 0.5, "train", BASE)
    assert theta.notes == {"nkat.calibration.steps": 50, "nkat.report.ppl_after": 17.25}
    assert list(theta.factors) == [X]
    factors = theta.factors[X]
    assert np.array_equal(factors.u, THETA[f"{X}.theta_u"].data)
    assert np.array_equal(factors.v, THETA[f"{X}.theta_v"].data)
    assert factors.scale.tolist() == list(SCALES)
    factors.check(X, (M, N), RANK)


@pytest.mark.parametrize("gamma", [0.0, 1.0])
def test_gamma_may_be_0_and_1(tmp_path: Path, gamma: float) -> None:
    with open_gguf(write(tmp_path / "model.nkat", {"nkat.theta.gamma": gamma})) as file:
        theta = open_theta(file)
    assert theta is not None
    assert theta.gamma == gamma


def test_a_model_without_theta_has_none(tmp_path: Path) -> None:
    with open_gguf(write_gguf(tmp_path / "model.gguf", {}, MODEL)) as file:
        assert open_theta(file) is None


HOSTILE: dict[str, tuple[dict[str, Any], dict[str, Tensor | None], str]] = {
    "newer version": ({"nkat.version": 2}, {}, "version 2; this program reads version 1"),
    "version of text": ({"nkat.version": "1"}, {}, "nkat.version must be a whole number"),
    "version true": ({"nkat.version": True}, {}, "nkat.version must be a whole number"),
    "rank 0": ({"nkat.theta.rank": 0}, {}, "rank 0; allowed are 2, 4, 6, 8"),
    "rank 3": ({"nkat.theta.rank": 3}, {}, "rank 3"),
    "rank -4": ({"nkat.theta.rank": -4}, {}, "rank -4"),
    "vast rank": ({"nkat.theta.rank": 2**40}, {}, "rank 1099511627776"),
    "rank of float": ({"nkat.theta.rank": 4.0}, {}, "nkat.theta.rank must be a whole number"),
    "no rank": ({"nkat.theta.rank": None}, {}, "nkat.theta.rank must be a whole number"),
    "another rank": ({"nkat.theta.rank": 2}, {}, "would fit the tensor"),
    "gamma 2": ({"nkat.theta.gamma": 2.0}, {}, "gamma is 2; it must lie between 0 and 1"),
    "gamma below 0": ({"nkat.theta.gamma": -0.5}, {}, "gamma is -0.5"),
    "gamma NaN": ({"nkat.theta.gamma": float("nan")}, {}, "gamma is nan"),
    "gamma infinite": ({"nkat.theta.gamma": float("inf")}, {}, "gamma is inf"),
    "gamma of text": ({"nkat.theta.gamma": "0.9"}, {}, "nkat.theta.gamma must be a number"),
    "no gamma": ({"nkat.theta.gamma": None}, {}, "nkat.theta.gamma must be a number"),
    "no method": ({"nkat.theta.method": None}, {}, "nkat.theta.method must be a string"),
    "no base": ({"nkat.base.sha256": None}, {}, "nkat.base.sha256 must be a string"),
    "base of a list": ({"nkat.base.sha256": [1]}, {}, "nkat.base.sha256 must be a string"),
    "base no hash": ({"nkat.base.sha256": "a\nb"}, {}, r"64 hexadecimal digits, not 'a\\nb'"),
    "count 2": ({"nkat.theta.tensor_count": 2}, {}, "theta of 1 tensors"),
    "no count": ({"nkat.theta.tensor_count": None}, {}, "tensor_count must be a whole number"),
    "none there": ({}, dict.fromkeys(THETA), "theta of 0 tensors"),
    "no u": ({}, {f"{X}.theta_u": None}, "theta_u' is missing"),
    "no v": ({}, {f"{X}.theta_v": None}, "theta_v' is missing"),
    "no scales": ({}, {f"{X}.theta_scale": None}, "theta_scale' is missing"),
    "u of floats": ({}, {f"{X}.theta_u": f32(1, 2)}, "must be of type I8, not F32"),
    "v of floats": ({}, {f"{X}.theta_v": f32(1, 2)}, "must be of type I8, not F32"),
    "scales of bytes": ({}, {f"{X}.theta_scale": i8(RANK)}, "must be of type F32, not I8"),
    "u turned": ({}, {f"{X}.theta_u": i8(RANK, M)}, "4 x 6, 10 x 4, 4; 6 x 4, 10 x 4, 4 would fit"),
    "v short": ({}, {f"{X}.theta_v": i8(N - 1, RANK)}, "9 x 4"),
    "u flat": ({}, {f"{X}.theta_u": i8(M * RANK)}, "would fit"),
    "u deep": ({}, {f"{X}.theta_u": i8(1, M, RANK)}, "would fit"),
    "few scales": ({}, {f"{X}.theta_scale": f32(1, 1, 1)}, "would fit"),
    "scale NaN": ({}, {f"{X}.theta_scale": f32(1, np.nan, 1, 1)}, "not finite"),
    "scale infinite": ({}, {f"{X}.theta_scale": f32(1, 1, 1, np.inf)}, "not finite"),
    "unknown tensor": (
        {"nkat.theta.tensor_count": 2},
        {name.replace("x", "y"): tensor for name, tensor in THETA.items()},
        "corrects 'y.weight', which the model does not have",
    ),
    "two lines": (
        {"nkat.theta.tensor_count": 2},
        {name.replace("x", "evil\nname"): tensor for name, tensor in THETA.items()},
        r"corrects 'evil\\nname.weight'",
    ),
    "a vector": (
        {"nkat.theta.tensor_count": 2},
        {name.replace("x", "norm"): tensor for name, tensor in THETA.items()},
        "corrects 'norm.weight', which is no matrix",
    ),
}


@pytest.mark.parametrize(("keys", "tensors", "fault"), HOSTILE.values(), ids=HOSTILE)
def test_each_lie_gets_one_line(
    tmp_path: Path, keys: dict[str, Any], tensors: dict[str, Tensor | None], fault: str
) -> None:
    path = write(tmp_path / "model.nkat", keys, tensors)
    with open_gguf(path) as file, pytest.raises(ModelFileError, match=fault) as caught:
        open_theta(file)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message


def test_a_sidecar_is_compared_with_the_model(tmp_path: Path) -> None:
    model = write_gguf(tmp_path / "model.gguf", {}, MODEL)
    with open_gguf(model) as file:
        right = write_gguf(tmp_path / "right.bin", KEYS | {"nkat.base.sha256": file.sha256()}, THETA)
        wrong = write_gguf(tmp_path / "wrong.bin", KEYS, THETA)
        theta = open_theta(file, right)
        assert theta is not None
        assert list(theta.factors) == [X]
        with pytest.raises(
            ModelFileError, match=r"wrong\.bin: was made for another model file .sha256 5a5a5a5a5a5a"
        ):
            open_theta(file, wrong)
        with pytest.raises(ModelFileError, match=r"model\.gguf: holds no theta"):
            open_theta(file, model)
        with pytest.raises(ModelFileError, match="cannot be read"):
            open_theta(file, tmp_path / "missing.bin")


def test_a_sidecar_takes_the_place_of_the_models_own_theta(tmp_path: Path) -> None:
    write(tmp_path / "model.nkat")
    write_gguf(tmp_path / "theta.bin", KEYS | {"nkat.theta.gamma": 0.25}, THETA)
    with open_gguf(tmp_path / "model.nkat") as file:
        own, other = open_theta(file), open_theta(file, tmp_path / "theta.bin")
    assert own is not None
    assert other is not None
    assert (own.gamma, other.gamma) == (0.5, 0.25)
