"""Texts cut into pieces, for what must not depend on how text comes."""

from hypothesis import strategies as st


@st.composite
def cuttings(draw: st.DrawFn, texts: st.SearchStrategy[str]) -> list[str]:
    """A text as a list of pieces, some of them empty."""
    text = draw(texts)
    places = sorted(draw(st.lists(st.integers(0, len(text)), max_size=12)))
    return [text[start:end] for start, end in zip([0, *places], [*places, len(text)], strict=True)]


def of_words(*words: str) -> st.SearchStrategy[str]:
    """Texts made of these words, and of beginnings of them."""
    whole = st.sampled_from(words)
    part = whole.flatmap(lambda word: st.integers(0, len(word)).map(lambda end: word[:end]))
    return st.lists(st.one_of(whole, whole, part), max_size=12).map("".join)
