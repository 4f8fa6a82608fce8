"""The merges derived from scores against a plain reading of llama.cpp's rule."""

import heapq

from hypothesis import given
from hypothesis import strategies as st

from engine.tokenizer import Tokenizer
from tests.engine.tokenizer.vocabularies import BYTE, CONTROL, NORMAL, UNKNOWN


def join_neighbours(text: str, scores: dict[str, float]) -> list[str]:
    """Join the neighbours whose union scores highest, the leftmost of equals, until none is a token."""
    symbols = list(text)
    before = [i - 1 for i in range(len(symbols))]
    after = [i + 1 for i in range(len(symbols) - 1)] + [-1]
    queue: list[tuple[float, int, int, str]] = []

    def consider(left: int, right: int) -> None:
        if left >= 0 and right >= 0 and (union := symbols[left] + symbols[right]) in scores:
            heapq.heappush(queue, (-scores[union], left, right, union))

    for i in range(1, len(symbols)):
        consider(i - 1, i)
    while queue:
        _, left, right, union = heapq.heappop(queue)
        if not symbols[left] or not symbols[right] or symbols[left] + symbols[right] != union:
            continue
        symbols[left], symbols[right] = union, ""
        after[left] = after[right]
        if after[left] >= 0:
            before[after[left]] = left
        consider(before[left], left)
        consider(left, after[left])
    return [symbol for symbol in symbols if symbol]


@st.composite
def vocabularies(draw: st.DrawFn) -> list[str]:
    """Tokens that are letters or unions of two tokens before them, the best first."""
    tokens = ["a", "b"]
    for _ in range(draw(st.integers(0, 10))):
        union = draw(st.sampled_from(tokens)) + draw(st.sampled_from(tokens))
        if union not in tokens and len(union) <= 8:
            tokens.append(union)
    return draw(st.permutations(tokens))


@given(vocabularies(), st.text("ab", max_size=40))
def test_merges_join_as_llama_cpp_does(tokens: list[str], text: str) -> None:
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    ranked = [0.0] * len(special) + [-float(rank) for rank in range(len(tokens))]
    tokenizer = Tokenizer.from_metadata(
        {
            "tokenizer.ggml.model": "llama",
            "tokenizer.ggml.tokens": special + tokens,
            "tokenizer.ggml.scores": ranked,
            "tokenizer.ggml.token_type": [UNKNOWN, CONTROL, CONTROL] + [BYTE] * 256 + [NORMAL] * len(tokens),
            "tokenizer.ggml.add_space_prefix": False,
        }
    )
    got = [tokenizer.text(i) for i in tokenizer.encode(text, add_bos=False)]
    assert got == join_neighbours(text, dict(zip(special + tokens, ranked, strict=True)))
