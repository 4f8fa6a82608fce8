"""How much to draft for one sequence, learned from what became of its drafts."""

_START = 4
"""Tokens of the first draft: few are lost if the text turns out to be unpredictable."""
_MEMORY = 0.8
"""Weight of all earlier drafts after one more; 0.8 remembers about five."""
_REST = 16
"""Tokens made without a draft once they do not pay."""
_LONGEST_REST = 256


class DraftLength:
    """Doubles after a draft that was accepted as a whole, else shrinks to one more than what was accepted.

    When too small a share of the latest drafts' tokens was accepted, there are none for a while; then a draft
    of one token tells whether the text has changed. Each one in vain doubles the pause.
    """

    def __init__(self, most: int, worth: float) -> None:
        """`most` >= 1: tokens of the longest draft. `worth`: that share, `Drafter.worth`."""
        self._most = most
        self._worth = worth
        self._length = min(_START, most)
        # A first draft in vain is no reason to stop: as if as many tokens had been accepted before it.
        self._drafted = self._accepted = float(_START)
        self._rest = 0
        self._next_rest = _REST

    def next(self) -> int:
        """Tokens to draft in this step; 0 while there is a pause, of which the step is one token."""
        if self._rest > 0:
            self._rest -= 1
            return 0
        return self._length

    def learn(self, drafted: int, accepted: int) -> None:
        """Of `drafted` >= 1 tokens that were computed the first `accepted` were drawn."""
        self._drafted = _MEMORY * self._drafted + drafted
        self._accepted = _MEMORY * self._accepted + accepted
        if accepted == drafted:
            self._length = min(self._most, 2 * self._length)
            self._next_rest = _REST
        else:
            self._length = min(self._most, accepted + 1)
        if self._accepted < self._worth * self._drafted:
            self._pause()

    def _pause(self) -> None:
        self._rest, self._next_rest = self._next_rest, min(2 * self._next_rest, _LONGEST_REST)
        self._length = 1
        # What was learned is as old as the pause by then: the next draft alone decides.
        self._drafted = self._accepted = 0.0
