"""`nkat convert`: make theta for a model."""

from converter.cli import convert, several_values

__all__ = ["convert", "several_values"]
