"""Which tensors models are made of."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from engine.architectures import open_model
from engine.kernels.reference import ReferenceKernels
from engine.models import Loader
from tests.support.gguf_files import write_llama


def test_tensors_that_nobody_has_checked_are_not_there(tmp_path: Path) -> None:
    model = open_model(write_llama(tmp_path / "x.gguf", tied=False, bias=True, rope_scaling="llama3"))
    hidden = {"output.weight", "blk.0.attn_q.bias", "rope_freqs.weight", "blk.0.ffn_up.weight"}
    checked = {name: info for name, info in model.tensors.items() if name not in hidden}
    kernels = ReferenceKernels(torch.device("cpu"), dense_bytes=1 << 30)
    load = Loader(replace(model, tensors=checked), kernels)
    assert not load.has("output")
    assert load.optional_vector("rope_freqs.weight") is None
    assert load.matrix("blk.0.attn_q").bias is None
    assert load.matrix("blk.1.attn_q").bias is not None
    with pytest.raises(KeyError):
        load.matrix("blk.0.ffn_up")
