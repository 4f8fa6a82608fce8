"""Theta as files hold it: names, keys, factors, and the checks that hostile ones need. Knows no torch."""

from engine.theta.factors import ThetaFactors
from engine.theta.names import RANKS
from engine.theta.source import base_sha256, open_theta
from engine.theta.theta import Theta, read_theta

__all__ = ["RANKS", "Theta", "ThetaFactors", "base_sha256", "open_theta", "read_theta"]
