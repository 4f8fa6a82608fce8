"""`nkat compare`: a model with theta and without, side by side."""

from engine.cli import compare

__all__ = ["compare"]
