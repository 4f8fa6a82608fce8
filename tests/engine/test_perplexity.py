import codecs
import contextlib
import importlib
import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.config import EngineConfig
from engine.engine import Engine
from engine.errors import RequestError
from engine.perplexity import measure_perplexity
from tests.engine.driving import request
from tests.engine.models.numpy_llama import NumpyLlama
from tests.support.environment import FULL, wikitext_path
from tests.support.gguf_files import write_llama
from tests.support.kernels import ALL, FASTEST_AND_REFERENCE

LLAMA_CPP = {1: 12.5967, 5: 21.8405, 10: 25.6883, 20: 27.9727}
"""WikiText-2 test, windows of 512: the figures of llama.cpp after so many windows."""
PROSE = Path(__file__).with_name("prose.txt")
LLAMA_CPP_PROSE = {1: 33.0376, 2: 32.7688}
"""The same for a text in the repository: llama-perplexity b11434, `--ctx-size 512 --file prose.txt`."""

TEXT = "The hello world and the world is to hello of a thing. " * 4


def load(path: Path, **others: Any) -> Engine:
    return Engine.load(EngineConfig(path, context_length=128, device="cpu", threads=1, **others))


def by_definition(path: Path, ids: list[int], context: int, bos: int | None) -> list[float]:
    """Perplexity after each window, in numpy."""
    model, logs, results = NumpyLlama(path), np.zeros(0), []
    for start in range(0, len(ids) - context + 1, context):
        window = ids[start : start + context]
        if bos is not None:
            window[0] = bos
        logs = np.append(logs, model.log_likelihoods(window, context // 2 + 1))
        results.append(math.exp(-logs.mean()))
    return results


@pytest.mark.parametrize("tokenizer", ["gpt2", "llama"])
@pytest.mark.parametrize("context", [8, 32])
@pytest.mark.parametrize("kernels", ALL)
def test_definition(tokenizer: str, context: int, kernels: str, tmp_path: Path) -> None:
    path = write_llama(tmp_path / "model.gguf", tokenizer=tokenizer, type="F32", context_length=128)
    engine = load(path, kernels=kernels)
    ids = engine.tokenizer.encode(TEXT)
    expected = by_definition(path, ids, context, 1 if tokenizer == "llama" else None)
    found = list(measure_perplexity(engine, TEXT, context=context))
    assert [result.windows for result in found] == list(range(1, len(ids) // context + 1))
    # the native kernels keep keys and values in half precision
    tolerance = 1e-4 if kernels == "reference" else 2e-3
    np.testing.assert_allclose([result.perplexity for result in found], expected, rtol=tolerance)
    assert found[-1].tokens == len(found) * (context - context // 2 - 1)
    assert all(result.total_windows == len(found) and result.context == context for result in found)
    engine.check_integrity()
    assert engine.snapshot().blocks_free == engine.snapshot().blocks_total


def test_error_is_that_of_the_mean(tmp_path: Path) -> None:
    path = write_llama(tmp_path / "model.gguf", type="F32", context_length=128)
    engine = load(path, kernels="reference")
    ids = engine.tokenizer.encode(TEXT)[:32]
    logs = NumpyLlama(path).log_likelihoods(ids, 17)
    (found,) = measure_perplexity(engine, TEXT, context=32, windows=1)
    expected = math.exp(-logs.mean()) * logs.std(ddof=1) / math.sqrt(len(logs))
    assert found.error == pytest.approx(expected, rel=1e-3)


def test_at_most_so_many_windows(tiny_model: Path) -> None:
    found = list(measure_perplexity(load(tiny_model), TEXT, context=8, windows=2))
    assert [(one.windows, one.total_windows) for one in found] == [(1, 2), (2, 2)]


@pytest.mark.parametrize(
    ("text", "context", "message"),
    [
        (TEXT, 129, "8 to 128"),
        (TEXT, 7, "8 to 128"),
        ("", 16, "0 tokens"),
        ("hello", 16, "one window needs 16"),
    ],
)
def test_what_cannot_be_measured(tiny_model: Path, text: str, context: int, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        next(measure_perplexity(load(tiny_model), text, context=context))


def test_scoring_does_not_disturb_the_prefix_cache(tiny_model: Path) -> None:
    engine = load(tiny_model)
    engine.log_likelihoods([5] * 40, 1)
    assert engine.snapshot().steps == 0
    engine.add(engine.prepare(request("x", [5] * 40, 1)))
    with pytest.raises(AssertionError, match="borrows"):
        engine.log_likelihoods([5] * 40, 1)


@pytest.fixture
def wikitext() -> str:
    """The test part of WikiText-2 raw; its line ends are part of it."""
    path = wikitext_path()
    if not path.is_file():
        pytest.skip("no WikiText: name the file in NKATTEST_WIKITEXT")
    return path.read_bytes().decode()


def check_against_llama_cpp(engine: Engine, text: str, expected: Mapping[int, float]) -> None:
    """Compare the running perplexity with llama.cpp's at each number of windows that `expected` has."""
    compared = []
    for found in measure_perplexity(engine, text, windows=max(expected)):
        if found.windows in expected:
            # llama.cpp's rounding of activations moves the mean of few windows by more than that of many.
            limit = 0.005 if found.windows == 20 else 0.01
            assert found.perplexity == pytest.approx(expected[found.windows], rel=limit), found
            compared.append(found.windows)
    assert compared == sorted(expected)


def test_figures_of_llama_cpp(smollm2_engine: Engine, wikitext: str) -> None:
    last = 20 if FULL else 5
    expected = {windows: figure for windows, figure in LLAMA_CPP.items() if windows <= last}
    check_against_llama_cpp(smollm2_engine, wikitext, expected)


def test_figures_of_llama_cpp_on_prose(smollm2_engine: Engine) -> None:
    check_against_llama_cpp(smollm2_engine, PROSE.read_text(), LLAMA_CPP_PROSE)


@pytest.mark.skipif(not FULL, reason="takes minutes: NKATTEST_FULL=1 runs it")
def test_the_fastest_kernels_predict_as_the_reference_does(smollm2: Path, wikitext: str) -> None:
    found = []
    for kernels in FASTEST_AND_REFERENCE:
        config = EngineConfig(smollm2, context_length=512, device="cpu", threads=2, kernels=kernels)
        *_, last = measure_perplexity(Engine.load(config), wikitext, windows=20)
        found.append(last.perplexity)
    assert found[0] == pytest.approx(found[-1], rel=0.003)


@pytest.mark.parametrize("kernels", FASTEST_AND_REFERENCE)
def test_a_text_that_everybody_has(smollm2: Path, kernels: str) -> None:
    """A text that comes with every Python and never changes; the figure is `NumpyLlama`'s, in float64.

    Activations of 8 bits move the mean of so few tokens by up to 3 %, up or down.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        zen = codecs.decode(importlib.import_module("this").s, "rot13")
    *_, found = measure_perplexity(load(smollm2, kernels=kernels), zen, context=64)
    assert (found.windows, found.tokens) == (3, 93)
    assert found.perplexity == pytest.approx(12.47723, rel=1e-3 if kernels == "reference" else 0.05)
