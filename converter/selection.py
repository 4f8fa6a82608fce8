"""Which tensors theta is to correct, by any of the names that people know them by."""

import re
from collections.abc import Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

from gguf import MODEL_ARCH, get_tensor_name_map

from engine.errors import ConfigError

_LINEAR = re.compile(r"blk\.\d+\.(attn_(q|k|v|output)|ffn_(gate|up|down))\.weight")
_LLAMA = ("layers.", "model.layers.")
"""How the names of the original LLaMA and of Hugging Face's begin. The name map knows many more, some of
which give the same word another meaning."""

_WEIGHT = ".weight"


def select_tensors(patterns: Sequence[str], available: Sequence[str], layers: int) -> list[str]:
    """The tensors of `available` that any of the patterns names, in its order.

    `available`: GGUF names of the matrices that theta can correct; `layers`: the model's blocks. A pattern
    is a GGUF name, an original LLaMA name (`layers.0.attention.wq.weight`) or one of Hugging Face's
    (`model.layers.0.self_attn.q_proj.weight`), with or without `.weight`, or a glob (`*`, `?`, `[...]`)
    over those. Without patterns it is every linear layer of every block. Raises `ConfigError` for a pattern
    that matches nothing, with the names that come near.
    """
    if not patterns:
        return [name for name in available if _LINEAR.fullmatch(name)]
    spellings = _spellings(available, layers)
    selected = {name for pattern in patterns for name in _matches(pattern, spellings)}
    return [name for name in available if name in selected]


def _spellings(available: Sequence[str], layers: int) -> dict[str, str]:
    """Every known name, without `.weight`, of the available tensors."""
    by_stem = {name.removesuffix(_WEIGHT): name for name in available}
    known = get_tensor_name_map(MODEL_ARCH.LLAMA, layers).mapping
    aliases = {
        alias: by_stem[stem]
        for alias, (_, stem) in known.items()
        if alias.startswith(_LLAMA) and stem in by_stem
    }
    return aliases | by_stem


def _matches(pattern: str, spellings: dict[str, str]) -> set[str]:
    stem = pattern.removesuffix(_WEIGHT)
    found = {name for spelling, name in spellings.items() if fnmatchcase(spelling, stem)}
    if not found:
        near = get_close_matches(stem, spellings)
        advice = f"; did you mean {', '.join(near)}?" if near else ""
        raise ConfigError(f"no tensor that theta can correct is called {pattern}{advice}")
    return found
