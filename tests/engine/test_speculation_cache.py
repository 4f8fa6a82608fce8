"""Drafts in the KV cache: whatever is accepted or not, a context's slots hold the context's own tokens."""

from random import Random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from engine.plan import Plan
from engine.sequence import Sequence
from tests.engine.test_context_shift import ShiftMachine


class DraftMachine(ShiftMachine):
    """The same chats, shifts, ends and preemptions, with drafts of which some beginning is accepted."""

    @precondition(lambda self: self.it.has_work)
    @rule(steps=st.integers(1, 20), pick=st.randoms(use_true_random=False))
    def step(self, steps: int, pick: Random) -> None:
        for _ in range(steps):
            plan = self.it.plan()
            self.it.extend(plan, {chunk.sequence: self.draft(chunk.sequence, pick) for chunk in plan})
            assert sum(chunk.count + len(chunk.draft) for chunk in plan) <= self.it.token_budget
            self.perform(self.it.take_moves())
            self.compute(plan)
            done = [chunk for chunk in plan if chunk.completes]
            self.it.advance(plan)
            for chunk in done:
                accepted = pick.randrange(len(chunk.draft) + 1)
                self.draw(chunk.sequence, chunk.draft[:accepted])
            self.books_agree()

    def draft(self, one: Sequence, pick: Random) -> list[int]:
        most = one.request.max_tokens - one.generated - 1
        return [next(self.fresh) for _ in range(pick.randrange(9))][:most]

    def compute(self, plan: Plan) -> None:
        super().compute(plan)
        for chunk in plan:
            one, end = chunk.sequence, chunk.start + chunk.count
            exact = self.cache[self.slot(one, end - 1)][2]
            for place, token in enumerate(chunk.draft, start=end):
                self.cache[self.slot(one, place)] = token, place, exact

    def draw(self, one: Sequence, accepted: tuple[int, ...]) -> None:
        for token in accepted:
            one.tokens.append(token)
            self.it.accept(one)
            self.every_context_is_its_own_and_as_exact_as_it_says()
        one.tokens.append(next(self.fresh))
        if one.generated >= one.request.max_tokens:
            self.known.append(one.tokens)
            self.it.finish(one)
        elif not accepted and one.generated > 2:
            # a banned phrase
            one.take_back(2)
            self.it.blocks.truncate(one, len(one.tokens) - 1)


DraftMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestDraftMachine = DraftMachine.TestCase
