"""Derives theta from a better version of the same model, block by block."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from converter.int8 import to_int8
from converter.moments import InputMoments
from converter.residual import best_correction
from converter.trainable import TrainableModel
from engine.errors import ModelFileError
from engine.gguf import GGUFFile

Sink = Callable[[int], None]
"""Told how many blocks are done."""


@torch.no_grad()
def derive_residual(
    model: TrainableModel,
    base: GGUFFile,
    reference: GGUFFile,
    windows: torch.Tensor,
    *,
    seed: int,
    done: int = 0,
    progress: Sink = lambda done: None,
) -> None:
    """Give every star layer of `model` the correction that brings it nearest to `reference`.

    `windows`, int64 [windows, T], are run through the model block by block, so that one block's moments
    are in memory at a time, and each block sees its inputs as the corrected blocks in front of it make
    them. The factors are those that INT8 leaves. Blocks before `done` have theirs already, from an
    earlier call. Stops between blocks on an exception of `progress`. Raises `ModelFileError` for weights
    that are not finite.
    """
    states = [model.model.embed(window) for window in windows]
    for number in range(model.model.cache_shape.layers):
        if number >= done:
            with _observed(model) as moments:
                for state in states:
                    model.block(number, state)
            _correct(model, base, reference, moments, seed)
            progress(number + 1)
        states = [model.block(number, state) for state in states]
    if any(not name.startswith("blk.") for name in model.layers):
        with _observed(model) as moments:
            for state in states:
                model.model.logits(state)
        _correct(model, base, reference, moments, seed)


@contextmanager
def _observed(model: TrainableModel) -> Iterator[InputMoments]:
    model.kernels.moments = InputMoments()
    try:
        yield model.kernels.moments
    finally:
        model.kernels.moments = None


def _correct(
    model: TrainableModel, base: GGUFFile, reference: GGUFFile, moments: InputMoments, seed: int
) -> None:
    """Set the factors of the layers whose inputs were observed. Raises `ModelFileError`."""
    half_gamma = float(model.star.half_gamma)
    for name, layer in model.layers.items():
        moment = moments.of(layer.weight)
        if moment is None:
            continue
        error = torch.from_numpy(reference.dequantize(name) - base.dequantize(name)).to(moment.device)
        if not (error.isfinite().all() and moment.isfinite().all()):
            raise ModelFileError(
                f"{name} or its inputs are not finite: the model or the reference is damaged"
            )
        u, v = best_correction(error, moment, model.rank, seed)
        layer.load(to_int8((u / half_gamma).cpu().numpy(), v.cpu().numpy(), metric=moment.cpu().numpy()))
