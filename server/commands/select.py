"""`nkat select`: how a model would best run here, and why."""

from backend_selector.cli import select

__all__ = ["select"]
