"""Text to token ids and back, and chat messages to text, by the rules that a GGUF file carries.

Knows llama.cpp's reading of the metadata. Knows no torch, no model and no HTTP.
"""

from engine.tokenizer.chat_template import ChatTemplate
from engine.tokenizer.detokenizer import Detokenizer
from engine.tokenizer.tokenizer import Tokenizer

__all__ = ["ChatTemplate", "Detokenizer", "Tokenizer"]
