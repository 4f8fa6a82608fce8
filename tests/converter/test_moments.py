"""Second moments against numpy, and who shares them."""

import numpy as np
import numpy.typing as npt
import torch

from converter.moments import InputMoments
from engine.gguf import open_gguf
from engine.kernels.reference import DenseWeight
from tests.converter.jobs import Bench, random_windows, trainable


def weight() -> DenseWeight:
    return DenseWeight(torch.zeros(3, 8), None)


def inputs(tokens: int, seed: int) -> torch.Tensor:
    return torch.randn(tokens, 8, generator=torch.Generator().manual_seed(seed)) * 3 + 1


def by_definition(*windows: torch.Tensor) -> npt.NDArray[np.float64]:
    """Mean of x x^T over all positions of all windows but the first of each."""
    rows = np.concatenate([window.numpy().astype(np.float64)[1:] for window in windows])
    mean: npt.NDArray[np.float64] = np.mean([np.outer(row, row) for row in rows], axis=0)
    return mean


def of(moments: InputMoments, layer: DenseWeight) -> npt.NDArray[np.float64]:
    moment = moments.of(layer)
    assert moment is not None
    assert moment.dtype == torch.float64
    return np.asarray(moment.numpy())


def test_the_mean_over_windows_of_any_length() -> None:
    moments, layer = InputMoments(), weight()
    windows = [inputs(5, 0), inputs(33, 1), inputs(2, 2)]
    for window in windows:
        moments.show(window, layer)
    np.testing.assert_allclose(of(moments, layer), by_definition(*windows), rtol=1e-5)


def test_a_massive_first_position_does_not_count() -> None:
    moments, layer = InputMoments(), weight()
    window = inputs(9, 0)
    window[0] = 1e4
    moments.show(window, layer)
    assert of(moments, layer).max() < 1e3


def test_layers_with_one_input_share_and_count_it_once() -> None:
    moments, q, k = InputMoments(), weight(), weight()
    first, second = inputs(6, 0), inputs(7, 1)
    for window in (first, second):
        moments.show(window, q)
        moments.show(window, k)
    np.testing.assert_allclose(of(moments, q), by_definition(first, second), rtol=1e-5)
    # what only the one is shown from here on reaches the other: there is one matrix for both
    moments.show(inputs(40, 2), q)
    np.testing.assert_array_equal(of(moments, q), of(moments, k))


def test_equal_inputs_that_are_two_tensors_are_not_shared() -> None:
    moments, one, other = InputMoments(), weight(), weight()
    window, later = inputs(6, 0), inputs(40, 1)
    moments.show(window, one)
    moments.show(window.clone(), other)
    np.testing.assert_array_equal(of(moments, one), of(moments, other))
    moments.show(later, one)
    np.testing.assert_allclose(of(moments, other), by_definition(window), rtol=1e-5)
    np.testing.assert_allclose(of(moments, one), by_definition(window, later), rtol=1e-5)


def test_a_layer_that_was_never_shown_anything() -> None:
    moments = InputMoments()
    moments.show(inputs(4, 0), weight())
    assert moments.of(weight()) is None


def test_the_kernels_show_what_star_layers_get(bench: Bench) -> None:
    model = trainable(bench.base)
    x = model.model.embed(random_windows(1, 16)[0])
    model.kernels.moments = InputMoments()
    model.block(0, x)
    moments, model.kernels.moments = model.kernels.moments, None
    model.block(1, x)  # unseen: nobody looks any more
    with open_gguf(bench.base) as file:
        norm = file.dequantize("blk.0.attn_norm.weight")
    rows = x.numpy().astype(np.float64)
    normed = rows / np.sqrt((rows**2).mean(axis=1, keepdims=True) + 1e-5) * norm
    found = {name: moments.of(layer.weight) for name, layer in model.layers.items()}
    expected = normed[1:].T @ normed[1:] / (len(normed) - 1)
    for part in "qkv":
        moment = found[f"blk.0.attn_{part}.weight"]
        assert moment is not None
        np.testing.assert_allclose(moment.numpy(), expected, atol=1e-5)
    gate, up, down = (found[f"blk.0.ffn_{part}.weight"] for part in ("gate", "up", "down"))
    assert gate is not None
    assert up is not None
    assert torch.equal(gate, up)
    assert down is not None
    assert down.shape == (64, 64)
    assert all(moment is None for name, moment in found.items() if name.startswith("blk.1."))
