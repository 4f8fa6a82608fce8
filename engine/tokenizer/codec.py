"""What the two families of tokenizers have in common."""

from collections.abc import Callable
from dataclasses import dataclass

from tokenizers.models import BPE
from tokenizers.normalizers import Normalizer
from tokenizers.pre_tokenizers import PreTokenizer


@dataclass(frozen=True, slots=True)
class Codec:
    """One family's way from text to tokens, and from a token's name to the bytes that it stands for.

    `normalizer` and `pre_tokenizer` see the text between two special tokens. `add_bos` and
    `add_space_prefix` are what holds for the file, its own keys considered.
    """

    model: BPE
    normalizer: Normalizer | None
    pre_tokenizer: PreTokenizer | None
    to_bytes: Callable[[str], bytes]
    add_bos: bool
    add_space_prefix: bool
