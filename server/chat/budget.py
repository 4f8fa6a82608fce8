"""How long a model may think."""

_SHARES = {"none": 0.0, "minimal": 0.1, "low": 0.25, "medium": 0.5}
"""KoboldCpp's shares of the reply for each effort; any other effort is free."""


def thinking_tokens(effort: str, budget: int | None, max_tokens: int) -> int | None:
    """The most tokens of thought; None for no limit. `budget` counts where `effort` sets no limit."""
    share = _SHARES.get(effort.strip().lower())
    if share is not None:
        return int(share * max(0, max_tokens))
    return budget if budget is not None and budget >= 0 else None
