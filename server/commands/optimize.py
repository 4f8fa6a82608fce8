"""`nkat optimize`: search for the best theta."""

from converter.tuning.cli import optimize

__all__ = ["optimize"]
