"""A model whose theta can be learned: float factors beside frozen packed weights."""

from collections.abc import Collection, Mapping

import torch
from torch.utils.checkpoint import checkpoint

from converter.moments import ObservedKernels
from engine.architectures import ModelFile
from engine.batch import Batch
from engine.layers import Star, StarLinear
from engine.memory import available_bytes
from engine.models import Loader, Model, load_model

_ACTIVATION_SHARE = 4
"""Activations that are kept for the way back may take this fraction of the free memory."""


class TrainableModel:
    """A model with theta of one rank on the selected tensors, zero at the start (U = 0, V random).

    `layers`: the star layers by the name of the tensor they correct, in the order the model has them.
    """

    def __init__(
        self,
        file: ModelFile,
        kernels: ObservedKernels,
        selected: Collection[str],
        *,
        rank: int,
        gamma: float,
        positions: int,
        seed: int,
    ) -> None:
        """`positions`: tokens of the longest window."""
        loader = _TrainableLoader(file, kernels, selected, rank=rank, gamma=gamma, seed=seed)
        self.kernels = kernels
        self.rank = rank
        self.star = loader.new_star
        self.model: Model = load_model(file, loader, positions)
        needed = _activation_bytes(file, positions)
        self._checkpointed = needed > available_bytes(kernels.device) // _ACTIVATION_SHARE

    @property
    def layers(self) -> Mapping[str, StarLinear]:
        """The star layers, by the tensor that they correct."""
        return self.star.layers

    @property
    def parameters(self) -> list[torch.Tensor]:
        """U [r, m] and V [r, n] of every layer in turn."""
        return [factor for layer in self.layers.values() for factor in (layer.u, layer.v)]

    @torch.no_grad()
    def balance(self) -> None:
        """Bring the rows of V to length 1 and move their size into U; B stays as it is.

        INT8 factors have all of V's elements between -127 and 127: a step of Adam on the U beside them
        would be a leap.
        """
        for layer in self.layers.values():
            length = layer.v.norm(dim=1, keepdim=True)
            # A row of zeros is a component that is not used; any direction of length 1 will do for it.
            spare = torch.full_like(layer.v, layer.v.shape[1] ** -0.5)
            v = torch.where(length > 0, layer.v / length.clamp(min=1e-30), spare)
            layer.replace(layer.u * length, v)

    def block(self, number: int, x: torch.Tensor) -> torch.Tensor:
        """One block over a whole window, [T, width] to [T, width]; differentiable in theta."""
        return self.model.block(number, x, Batch.of_one(torch.arange(len(x), device=x.device)), None)

    def logits(self, ids: torch.Tensor) -> torch.Tensor:
        """Logits float32 [T, vocab] of a window of token ids [T], differentiable in theta.

        Where memory is short the blocks are computed again on the way back, for a third more time.
        """
        x = self.model.embed(ids)
        for number in range(self.model.cache_shape.layers):
            if self._checkpointed and torch.is_grad_enabled():
                x = checkpoint(self.block, number, x, use_reentrant=False)
            else:
                x = self.block(number, x)
        return self.model.logits(x)


class _TrainableLoader(Loader):
    """Gives every selected matrix a star layer with factors of its own."""

    def __init__(
        self,
        file: ModelFile,
        kernels: ObservedKernels,
        selected: Collection[str],
        *,
        rank: int,
        gamma: float,
        seed: int,
    ) -> None:
        super().__init__(file, kernels)
        self.star = self.new_star = Star(gamma, kernels.device)
        self._selected = frozenset(selected)
        self._shapes = {name: info.shape for name, info in file.tensors.items()}
        self._rank = rank
        self._random = torch.Generator().manual_seed(seed)

    def _star_factors(self, tensor: str) -> tuple[torch.Tensor, torch.Tensor] | None:
        if tensor not in self._selected:
            return None
        rows, columns = self._shapes[tensor]
        # Rows of length 1: with U of the size that Adam gives it, a step of the usual learning rate counts.
        v = torch.randn(self._rank, columns, generator=self._random) * columns**-0.5
        return torch.zeros(self._rank, rows), v


def _activation_bytes(file: ModelFile, positions: int) -> int:
    """About what the way back needs to keep: the inputs of all operations, and the attention's odds."""
    config = file.config
    values = 8 * config.width + 4 * config.feed_forward + 3 * config.heads * positions
    return 4 * config.layers * positions * values
