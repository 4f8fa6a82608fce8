from pathlib import Path

import pytest

from benchmarks.limits import Work
from engine.gguf import open_gguf
from tests.support.gguf_files import write_llama


@pytest.mark.parametrize("tied", [True, False])
def test_work_leaves_the_embedding_out_unless_it_is_the_output(tmp_path: Path, tied: bool) -> None:
    with open_gguf(write_llama(tmp_path / "tiny.gguf", tied=tied)) as file:
        work = Work.of(file)
        total = sum(tensor.n_bytes for tensor in file.tensors.values())
        embedding = file.tensors["token_embd.weight"].n_bytes
    assert work.bytes_per_token == (total if tied else total - embedding)
    # Two layers of width 64, 4 heads and 2 KV heads of 16, 128 wide inside.
    assert work.flops_per_token == 2 * 2 * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 128 * 64)
