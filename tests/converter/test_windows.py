"""Windows of text: what is in them, what is held out, and what tells them apart."""

from pathlib import Path

import pytest
import torch

from converter.windows import cut, digest, hold_out
from engine.errors import RequestError
from engine.gguf import open_gguf
from engine.text import Text
from engine.tokenizer import Tokenizer
from tests.converter.jobs import SIZES, TEXT
from tests.support.gguf_files import write_llama


def tokenizer(folder: Path, kind: str) -> Tokenizer:
    with open_gguf(write_llama(folder / "model.gguf", tokenizer=kind, **SIZES)) as file:
        return Tokenizer.from_metadata(file.metadata)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_windows_are_the_text_in_order(tmp_path: Path, kind: str) -> None:
    words = tokenizer(tmp_path, kind)
    ids = words.encode(TEXT)
    windows = cut(Text("text", TEXT), words, 32)
    assert windows.dtype == torch.int64
    assert windows.shape == (len(ids) // 32, 32)
    expected = torch.tensor(ids[: windows.numel()]).view(-1, 32)
    assert torch.equal(windows[:, 1:], expected[:, 1:])
    # a model that wants BOS gets one at the start of each window, in the place of a token
    first = torch.full((len(windows),), 1) if kind == "llama" else expected[:, 0]
    assert torch.equal(windows[:, 0], first)
    assert torch.equal(cut(Text("text", TEXT), words, 32, most=3), windows[:3])


def test_a_text_shorter_than_a_window(tmp_path: Path) -> None:
    words = tokenizer(tmp_path, "gpt2")
    tokens = len(words.encode("hello world"))
    assert len(cut(Text("t", "hello world"), words, tokens)) == 1
    with pytest.raises(RequestError, match=rf"the text t\.txt has {tokens} tokens; at least {tokens + 1}"):
        cut(Text("t.txt", "hello world"), words, tokens + 1)


@pytest.mark.parametrize(
    ("count", "wanted", "held"), [(10, 1, 1), (10, 2, 2), (10, 3, 2), (4, 20, 0), (5, 20, 1), (10, 0, 0)]
)
def test_at_most_a_fifth_is_held_out(count: int, wanted: int, held: int) -> None:
    windows = torch.arange(count * 4).view(count, 4)
    kept, out = hold_out(windows, wanted)
    assert (len(kept), len(out)) == (count - held, held)
    assert torch.equal(torch.cat((kept, out)), windows)


def test_a_digest_tells_texts_apart_and_cuts_of_one_text_too() -> None:
    ids = torch.arange(64)
    digests = [digest(each) for each in (ids.view(2, 32), ids.view(4, 16), (ids + 1).view(2, 32))]
    assert len(set(digests)) == 3
    assert digest(ids.view(2, 32).clone()) == digests[0]
