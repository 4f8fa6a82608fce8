"""Tensor names and metadata keys of theta: the converter writes with them, the engine reads with them."""

VERSION = 1
RANKS = (2, 4, 6, 8)
"""Ranks that theta may have."""
DEFAULT_RANK = 4
DEFAULT_GAMMA = 0.97

PREFIX = "nkat."
VERSION_KEY = "nkat.version"
RANK_KEY = "nkat.theta.rank"
GAMMA_KEY = "nkat.theta.gamma"
METHOD_KEY = "nkat.theta.method"
COUNT_KEY = "nkat.theta.tensor_count"
BASE_KEY = "nkat.base.sha256"
CALIBRATION_PREFIX = "nkat.calibration."
REPORT_PREFIX = "nkat.report."

_U, _V, _SCALE = ".theta_u", ".theta_v", ".theta_scale"


def theta_names(tensor: str) -> tuple[str, str, str]:
    """Names of U, V and the scales for a tensor such as `blk.0.attn_q.weight`."""
    return tensor + _U, tensor + _V, tensor + _SCALE


def corrected_tensor(name: str) -> str | None:
    """The tensor that a theta tensor corrects; None for any other tensor."""
    for suffix in (_U, _V, _SCALE):
        if name.endswith(suffix):
            return name.removesuffix(suffix)
    return None
