"""The sampler as the engine calls it: batches, bans, masks, forced tokens, damage."""

import math
from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import RequestError
from engine.sampling import NO_DRAW, Draw, Row, Sampler
from engine.sampling.candidates import BOUND
from engine.sampling.device_logits import DeviceLogits
from engine.tokenizer import Tokenizer
from engine.tokenizer.piece_index import PieceIndex
from engine.types import DEFAULT_SAMPLER_ORDER, SamplingParams
from tests.engine.sampling.drawing import END, VOCABULARY, draw, make_sampler, mask, noise
from tests.engine.sampling.rows import request

params_of_any_kind = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.0, 0.3, 1.0, 1.7, 1e-12, 1e12]),
    top_k=st.sampled_from([0, 1, 5]),
    top_p=st.sampled_from([1.0, 0.9, 0.0]),
    min_p=st.sampled_from([0.0, 0.05, 7.0]),
    top_a=st.sampled_from([0.0, 0.3]),
    tfs=st.sampled_from([1.0, 0.9, -1.0]),
    typical=st.sampled_from([1.0, 0.6, 0.0]),
    nsigma=st.sampled_from([0.0, 1.0]),
    rep_pen=st.sampled_from([1.0, 1.3, 0.0, 1e9]),
    presence_penalty=st.sampled_from([0.0, 2.0, -1e9]),
    dynatemp_range=st.sampled_from([0.0, 0.5, -3.0]),
    smoothing_factor=st.sampled_from([0.0, 0.3, 1e20]),
    smoothing_curve=st.sampled_from([1.0, 0.2, 5.0]),
    mirostat=st.sampled_from([0, 0, 0, 1, 2]),
    mirostat_tau=st.sampled_from([2.0, -1.0]),
    dry_multiplier=st.sampled_from([0.0, 0.8, 1e20]),
    dry_allowed_length=st.sampled_from([1, 2]),
    dry_sequence_breakers=st.sampled_from([(), ("w9", "w1 w2")]),
    xtc_probability=st.sampled_from([0.0, 0.5]),
    adaptive_target=st.sampled_from([-1.0, 0.2, 3.0]),
    logit_bias=st.sampled_from([(), ((3, 5.0), (4, -math.inf), (5, 1e20))]),
    order=st.permutations(DEFAULT_SAMPLER_ORDER).map(tuple),
    seed=st.integers(1, 2**31),
)
contexts = st.lists(st.integers(0, 5), min_size=1, max_size=20)
tokens_of = st.frozensets(st.integers(0, VOCABULARY - 1))
damage = st.sampled_from([None, math.nan, math.inf, -math.inf, 3e38, -3e38])


@settings(max_examples=200, deadline=None)
@given(
    params_of_any_kind, contexts, tokens_of, st.none() | tokens_of, st.booleans(), damage, st.integers(0, 99)
)
def test_whatever_is_asked_a_token_comes_that_may_come(
    params: SamplingParams,
    context: list[int],
    banned: frozenset[int],
    allowed: frozenset[int] | None,
    ban_eos: bool,
    damaged: float | None,
    seed: int,
) -> None:
    logits = noise(seed, 3)
    if damaged is not None:
        logits[1, seed % 7 :: 7] = damaged
        logits[2] = damaged
    sampler = make_sampler(request(params, ban_eos=ban_eos, logprobs=3, final_logprobs=seed % 2 == 0))
    untouched = logits.clone()
    words = None if allowed is None else mask(*allowed)
    reach = frozenset(range(VOCABULARY)) if allowed is None else allowed
    free = reach - banned - ({END} if ban_eos else frozenset())
    for row in logits:
        (found,) = sampler.sample(row[None], [Row("x", context, banned, words)])
        if not -math.inf < row.max() <= BOUND:  # of NaN none of the two holds
            assert found is NO_DRAW
            continue
        assert found.token in (free or reach or {END})
        assert found.logprobs is not None
        for told in (found.logprobs, *found.logprobs.alternatives):
            assert math.isfinite(told.logprob)
        context = [*context, found.token]
    assert torch.equal(logits.nan_to_num(nan=7.0), untouched.nan_to_num(nan=7.0))


@settings(max_examples=50, deadline=None)
@given(st.lists(params_of_any_kind, min_size=1, max_size=4), st.integers(0, 99))
def test_rows_do_not_depend_on_their_company(settings_of: list[SamplingParams], seed: int) -> None:
    requests = [
        request(params, str(i), logprobs=2, ban_eos=bool(i % 2)) for i, params in enumerate(settings_of)
    ]
    together, alone = make_sampler(*requests), make_sampler(*requests)
    contexts = [[1, 2, 1] for _ in requests]
    for step in range(3):
        logits = noise(seed + step, len(requests))
        rows = [
            Row(one.request_id, context, frozenset({i}), None if i % 2 else mask(1, 2, 3, 40))
            for i, (one, context) in enumerate(zip(requests, contexts, strict=True))
        ]
        order = range(len(rows))[:: 1 if step % 2 else -1]
        expected = {i: alone.sample(logits[i : i + 1], [rows[i]])[0] for i in order}
        found = together.sample(logits, rows)
        assert found == [expected[i] for i in range(len(rows))]
        for context, one in zip(contexts, found, strict=True):
            context.append(one.token)


def test_a_device_gives_what_the_processor_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    params = SamplingParams(rep_pen=1.2, top_k=20, top_p=0.9, logit_bias=((7, 1.0),), seed=5)
    dry = SamplingParams(dry_multiplier=0.7, dry_allowed_length=1, min_p=0.05, seed=6)
    requests = [request(params, "a", logprobs=4), request(dry, "b", ban_eos=True, logprobs=4)]
    here, there = make_sampler(*requests), make_sampler(*requests)
    # torch's own way on the processor's memory: the code is the same for every device
    monkeypatch.setattr(there, "_rows", lambda logits: map(DeviceLogits.of, logits))
    for step in range(6):
        logits = noise(step, 2)
        rows = [Row("a", [3, 7, 3], frozenset({9})), Row("b", [1, 2, 1], allowed=mask(*range(2, 50)))]
        for one, other in zip(here.sample(logits, rows), there.sample(logits, rows), strict=True):
            assert one.token == other.token
            assert one.logprobs is not None
            assert other.logprobs is not None
            assert one.logprobs.logprob == pytest.approx(other.logprobs.logprob, abs=1e-5)
            assert [o.token_id for o in one.logprobs.alternatives] == [
                o.token_id for o in other.logprobs.alternatives
            ]


def test_seeds_reproduce_and_can_be_asked_for() -> None:
    def replies(seed: int | None) -> list[int]:
        sampler = make_sampler(request(SamplingParams(seed=seed)))
        return [sampler.sample(noise(i), [Row("x", [1])])[0].token for i in range(20)]

    assert replies(42) == replies(42) != replies(43)
    sampler = make_sampler(request(SamplingParams(seed=42), "given"), request(SamplingParams(), "drawn"))
    assert sampler.seed("given") == 42
    assert sampler.seed("drawn") > 0
    sampler.remove("given")
    with pytest.raises(KeyError):
        sampler.seed("given")


def test_draws_follow_the_probabilities() -> None:
    sampler = make_sampler(request(SamplingParams(seed=11)))
    probabilities = [0.5, 0.3, 0.15, 0.05]
    logits = torch.tensor([[math.log(p) for p in probabilities]])
    counts = Counter(sampler.sample(logits, [Row("x", [0])])[0].token for _ in range(2000))
    for token, p in enumerate(probabilities):
        assert abs(counts[token] / 2000 - p) < 4 * (p * (1 - p) / 2000) ** 0.5


def test_no_rows_no_tokens() -> None:
    assert make_sampler().sample(torch.zeros(0, 10), []) == []


def test_a_forced_token_comes_and_takes_no_random_number() -> None:
    plain, forced = (make_sampler(request(SamplingParams(seed=3))) for _ in range(2))
    row = Row("x", [1])
    expected = [plain.sample(noise(i), [row])[0] for i in range(6)]
    found = []
    for i in range(6):
        given_token = Row("x", [1], frozenset({9}), mask(4), forced=9)
        assert forced.sample(noise(i), [given_token]) == [Draw(9)]
        found += forced.sample(noise(i), [row])
    assert found == expected


def test_bans_hold_against_every_bias() -> None:
    for temperature in (0.0, 1.0):
        params = SamplingParams(temperature=temperature, logit_bias=((5, 1e9), (END, 1e9)), seed=1)
        logits = noise(1)[0]
        assert draw(logits, params).token in (5, END)
        banned = Row("x", [1], frozenset({5}))
        assert draw(logits, params, banned).token == END
        assert draw(logits, params, banned, ban_eos=True).token not in (5, END)


@pytest.mark.parametrize("banned", [frozenset(), frozenset({7})])
def test_a_ban_of_the_end_needs_no_other(banned: frozenset[int]) -> None:
    logits = noise(1)[0]
    logits[END] = 50.0
    row = Row("x", [1], banned)
    assert draw(logits, SamplingParams(seed=1), row).token == END
    assert draw(logits, SamplingParams(seed=1), row, ban_eos=True).token != END


def test_bans_may_change_from_row_to_row() -> None:
    sampler = make_sampler(request(SamplingParams(temperature=0.0)))
    logits = torch.arange(VOCABULARY, dtype=torch.float32)[None]
    drawn = [
        sampler.sample(logits, [Row("x", [1], frozenset(banned))])[0].token
        for banned in ((), (63,), (63, 62), (63,), ())
    ]
    assert drawn == [63, 62, 61, 62, 63]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_mask_with_nothing_but_bans_lifts_them(temperature: float) -> None:
    params = SamplingParams(temperature=temperature, seed=1)
    logits = noise(2)[0]
    assert draw(logits, params, Row("x", [1], allowed=mask(END)), ban_eos=True).token == END
    assert draw(logits, params, Row("x", [1], frozenset({7, 8}), mask(7, 8))).token in (7, 8)
    # not all of them, as long as one token is free
    assert draw(logits, params, Row("x", [1], frozenset({7}), mask(7, 8))).token == 8


def test_lifted_bans_leave_out_what_the_model_excludes() -> None:
    logits = noise(2)[0]
    logits[7] = -math.inf
    row = Row("x", [1], frozenset({7, 8}), mask(7, 8))
    told = draw(logits, SamplingParams(seed=1), row, logprobs=5, final_logprobs=True).logprobs
    assert told is not None
    assert [other.token_id for other in told.alternatives] == [told.token_id] == [8]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_mask_with_nothing_at_all_ends_the_reply(temperature: float) -> None:
    params = SamplingParams(temperature=temperature, seed=1)
    assert draw(noise(3)[0], params, Row("x", [1], allowed=mask()), ban_eos=True).token == END


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"temperature": math.nan}, "temperature must be a number, not nan"),
        ({"min_p": math.nan}, "min_p must be a number, not nan"),
        ({"logit_bias": ((3, math.nan),)}, "the logit bias of token 3 must be a number, not nan"),
    ],
)
def test_numbers_that_are_none_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        make_sampler().prepare(request(SamplingParams(**fields)))


def test_a_ban_by_bias_is_accepted() -> None:
    make_sampler().prepare(request(SamplingParams(logit_bias=((3, -math.inf),))))


def test_prepared_breakers_are_those_that_count(gpt2_tokenizer: Tokenizer) -> None:
    comma, one = (gpt2_tokenizer.encode(text, add_bos=False)[0] for text in (",", "1"))
    tokens = [one, comma, one, comma]
    logits = torch.zeros(1, gpt2_tokenizer.vocab_size)
    logits[0, one] = 1.0
    pieces = PieceIndex(gpt2_tokenizer)
    for breakers, expected in ((), False), (('"',), False), ((",",), True):
        sampler = Sampler(gpt2_tokenizer, pieces)
        dry = SamplingParams(
            temperature=0, dry_multiplier=5.0, dry_allowed_length=1, dry_sequence_breakers=breakers
        )
        sampler.prepare(request(dry))
        sampler.add(request(dry))
        assert (sampler.sample(logits, [Row("x", tokens)])[0].token == one) == expected
