"""A grammar that is small and takes too much work after a few letters."""

_WAYS = 50

AMBIGUOUS = "\n".join(
    [
        "root ::= " + " | ".join(f"r{at}" for at in range(_WAYS)),
        *(f'r{at} ::= "a" root | root "a" | "a"' for at in range(_WAYS)),
    ]
)
