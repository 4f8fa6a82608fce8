"""`nkat bench`: how fast a model is, and how well it predicts."""

from engine.cli import bench

__all__ = ["bench"]
