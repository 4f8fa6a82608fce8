"""What models are made of beside packed matrices: linear layers with theta, and the rotary embedding."""

from engine.layers.rope import rotation
from engine.layers.star_linear import Star, StarLinear

__all__ = ["Star", "StarLinear", "rotation"]
