"""Draws the tokens of one request."""

from collections.abc import Callable
from functools import partial

import numpy as np

from engine.kernels import Drawing
from engine.native.shortlist import Tail
from engine.sampling.bitmask import unpack
from engine.sampling.breakers import Breakers
from engine.sampling.candidates import Candidates, Ids
from engine.sampling.chain import compile_chain
from engine.sampling.logprobs import PieceOf, final_logprobs, model_logprobs
from engine.sampling.random import fresh_seed
from engine.sampling.row import Draw, Row
from engine.sampling.selection import Selection, Selector
from engine.sampling.validation import within_bounds
from engine.sampling.vocabulary_logits import Shortlist, VocabularyLogits
from engine.types import GenerationRequest, TokenLogprob

_in_silence = np.errstate(all="ignore")
"""Extreme settings and damaged models make infinities, which every step knows how to take. Entered only where
numpy computes: entering takes a good part of a usual draw's time."""


class SequenceSampler:
    """The sampling state of one request: its chain, its random numbers, what its samplers remember.

    `end_ids`: tokens that end a generation. `piece`: the bytes of a token. `breakers`: those of the
    request's DRY penalty. `banned`: tokens that never come.
    """

    def __init__(
        self,
        request: GenerationRequest,
        *,
        end_ids: frozenset[int] = frozenset(),
        piece: PieceOf = lambda token: b"",
        breakers: Breakers | None = None,
        banned: frozenset[int] = frozenset(),
    ) -> None:
        params = within_bounds(request.sampling)
        self.seed = fresh_seed() if params.seed is None else params.seed
        self.selector = Selector(params, self.seed)
        self._chain = compile_chain(params, breakers)
        self._end_ids = end_ids
        self._always_banned = banned | end_ids if request.ban_eos else banned
        self._piece = piece
        self._logprobs = request.logprobs
        self._final_logprobs = request.final_logprobs
        self._banned: tuple[frozenset[int], Ids] = (frozenset(), _ids(self._always_banned))
        """The last row's bans, and all that is banned with them."""

    def drawing(self, row: Row) -> Drawing | None:
        """How the row's token is drawn, where the model's own logits and one random number decide and no
        candidates are to be told of; None: as `begin` does it.

        The random number is used up; `put_back` takes it back.
        """
        if row.forced is not None or self._logprobs is not None or self._changes(row):
            return None
        if self._chain.greedy and self._chain.cut == 1:
            return Drawing(1, Tail(), 0.0)
        if self._chain.tail is None or not self.selector.plain:
            return None
        return Drawing(self._chain.cut, self._chain.tail, self.selector.uniform())

    def put_back(self, drawing: Drawing) -> None:
        """Take a drawing back that came to nothing."""
        if not self._chain.greedy:
            self.selector.put_back(drawing.u)

    def begin(self, raw: VocabularyLogits, row: Row) -> Callable[[], Selection]:
        """Queue the work on all logits; the result, to be called once, waits for it and draws.

        `raw` holds the model's logits, which stay as they are.
        """
        if row.forced is not None:
            return partial(_certain, row.forced)
        logits = self._changed(raw, row)
        if self._chain.tail is not None and self.selector.plain:
            u = self.selector.uniform()
            drawn = logits.draw(self._chain.cut, self._chain.tail, u)
            if drawn is not None:
                return partial(Selection, *drawn)
            self.selector.put_back(u)
        return partial(self._select, raw, row, self._shortlist(logits))

    def draw(self, raw: VocabularyLogits, selection: Selection) -> Draw:
        """What the engine gets for a selection: its token, and the logarithms that the request asks for."""
        token, count = selection.token, self._logprobs
        if count is None:
            return Draw(token)
        return Draw(token, self._told(raw, selection, count))

    @_in_silence
    def _told(self, raw: VocabularyLogits, selection: Selection, count: int) -> TokenLogprob:
        if self._final_logprobs:
            return final_logprobs(selection, count, self._piece)
        return model_logprobs(raw, selection.token, count, self._piece)

    def _changed(self, raw: VocabularyLogits, row: Row) -> VocabularyLogits:
        """The logits behind biases, bans, the mask and what else changes all of them."""
        return self._change(raw, row, self._banned_ids(row)) if self._changes(row) else raw

    def _changes(self, row: Row) -> bool:
        chain = self._chain
        banned = len(self._banned_ids(row)) > 0
        return banned or chain.biases is not None or row.allowed is not None or len(chain.vocabulary) > 0

    @_in_silence
    def _change(self, raw: VocabularyLogits, row: Row, banned: Ids) -> VocabularyLogits:
        chain, logits = self._chain, raw.copy()
        if chain.biases is not None:
            logits.add(chain.biases.ids, chain.biases.amounts)
        if len(banned):
            logits.exclude(banned)
        if row.allowed is not None:
            logits.restrict(row.allowed)
        for change in chain.vocabulary:
            change(logits, row.tokens)
        return logits

    @_in_silence
    def _shortlist(self, logits: VocabularyLogits) -> Shortlist:
        return logits.best(self._chain.cut, self._chain.within)

    @_in_silence
    def _select(self, raw: VocabularyLogits, row: Row, shortlist: Shortlist) -> Selection:
        candidates = shortlist()
        if candidates is None:
            candidates = self._last_resort(raw, row)
        candidates = self._chain.narrow(candidates, row.tokens)
        return Selection(candidates, 0) if self._chain.greedy else self.selector.select(candidates, raw)

    def _banned_ids(self, row: Row) -> Ids:
        banned, ids = self._banned
        if row.banned is not banned:
            # large sets stay the same for the whole request
            ids = _ids(row.banned | self._always_banned)
            self._banned = row.banned, ids
        return ids

    def _last_resort(self, raw: VocabularyLogits, row: Row) -> Candidates:
        """Candidates where everything is excluded.

        Tokens that the mask allows and nobody bans; if there are none, bans are lifted; a mask that
        allows nothing at all is at its end. The model's own logits rank them, or nothing does.
        """
        every = np.arange(raw.vocab_size)
        allowed = every if row.allowed is None else np.flatnonzero(unpack(row.allowed, len(every)))
        free = np.setdiff1d(allowed, self._banned_ids(row), assume_unique=True)
        pools = (free, allowed, _ids(self._end_ids), every)
        pool = next(ids for ids in pools if len(ids))
        logits = raw.take(pool)
        possible = logits > -np.inf
        if possible.any():
            pool, logits = pool[possible], logits[possible]
        else:
            logits = np.zeros(len(pool), np.float32)
        return Candidates.ranked(pool, logits).keep(self._chain.cut)


def _certain(token: int) -> Selection:
    return Selection(Candidates(np.array([token]), np.zeros(1, np.float32)), 0)


def _ids(tokens: frozenset[int]) -> Ids:
    return np.array(sorted(tokens), dtype=np.int64)
