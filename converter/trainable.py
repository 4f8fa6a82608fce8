"""A model whose theta can be learned: float factors beside frozen packed weights."""

from collections.abc import Collection

import torch
from torch.utils.checkpoint import checkpoint

from engine.architectures import ModelFile
from engine.batch import Batch
from engine.kernels import Kernels
from engine.layers import Star
from engine.models import Loader, Model, load_model

_INIT_SCALE = 1.0
"""Length of the rows of V at the start, over the root of their size."""


class TrainableModel:
    """A model with theta of one rank on the selected tensors, zero at the start (U = 0, V random)."""

    def __init__(
        self,
        file: ModelFile,
        kernels: Kernels,
        selected: Collection[str],
        *,
        rank: int,
        gamma: float,
        positions: int,
        seed: int,
        checkpointed: bool = False,
    ) -> None:
        """`checkpointed`: compute the blocks again on the way back, for a thirtieth of the memory."""
        loader = _TrainableLoader(file, kernels, selected, rank=rank, gamma=gamma, seed=seed)
        self.model: Model = load_model(file, loader, positions)
        self.star = loader.new_star
        self._checkpointed = checkpointed

    @property
    def parameters(self) -> list[torch.Tensor]:
        """U and V of every layer."""
        return [factor for layer in self.star.layers.values() for factor in (layer.u, layer.v)]

    def logits(self, ids: torch.Tensor) -> torch.Tensor:
        """Logits float32 [T, vocab] of a window of token ids [T], differentiable in theta."""
        batch = Batch.of_one(ids)
        x = self.model.embed(ids)
        for number in range(self.model.cache_shape.layers):
            if self._checkpointed and torch.is_grad_enabled():
                x = checkpoint(self.model.block, number, x, batch, None, use_reentrant=False)
            else:
                x = self.model.block(number, x, batch, None)
        return self.model.logits(x)


class _TrainableLoader(Loader):
    """Gives every selected matrix a star layer with factors of its own."""

    def __init__(
        self,
        file: ModelFile,
        kernels: Kernels,
        selected: Collection[str],
        *,
        rank: int,
        gamma: float,
        seed: int,
    ) -> None:
        super().__init__(file.file, kernels)
        self.star = self.new_star = Star(gamma, kernels.device)
        self._selected = frozenset(selected)
        self._shapes = {name: info.shape for name, info in file.file.tensors.items()}
        self._rank = rank
        self._random = torch.Generator().manual_seed(seed)

    def _star_factors(self, tensor: str) -> tuple[torch.Tensor, torch.Tensor] | None:
        if tensor not in self._selected:
            return None
        rows, columns = self._shapes[tensor]
        v = torch.randn(self._rank, columns, generator=self._random) * (_INIT_SCALE * columns**-0.5)
        return torch.zeros(self._rank, rows), v
