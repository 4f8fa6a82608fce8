"""How theta counts in a request."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ThetaSetting:
    """Whether theta counts and with which gamma; `root` names it in the prefix cache, 0 without theta."""

    enabled: bool = False
    gamma: float = 0.0
    root: int = 0


WITHOUT = ThetaSetting()
