"""Drafts of a second model: the same replies, in fewer steps, and a cache that keeps its books."""

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.batch import Batch
from engine.block_manager import BlockManager
from engine.config import EngineConfig
from engine.engine import Engine
from engine.errors import ConfigError, ModelFileError
from engine.sequence import Sequence
from engine.speculation.model_drafter import ModelDrafter
from engine.types import GenerationRequest, SamplingParams, TokenPrompt
from tests.engine.driving import GREEDY, request
from tests.engine.speculating import Told, listen, load, recorded, serve, widths_of
from tests.support.gguf_files import write_llama
from tests.support.kernels import ALL


@pytest.fixture(scope="module")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same vocabulary, other weights, another shape."""
    return write_llama(tmp_path_factory.mktemp("draft") / "other.gguf", n_layers=1, n_heads=2, seed=9)


def drafter_of(engine: Engine) -> ModelDrafter:
    assert engine._speculator is not None
    drafter = engine._speculator._drafter
    assert isinstance(drafter, ModelDrafter)
    return drafter


def requests_of(count: int, *, sampled: bool = True) -> list[GenerationRequest]:
    rng = random.Random(count)
    return [
        request(
            str(number),
            [rng.randrange(3, 250) for _ in range(rng.choice([1, 5, 20, 70]))],
            40,
            SamplingParams(temperature=0.2, seed=number) if sampled else GREEDY,
            ignore_eos=True,
        )
        for number in range(count)
    ]


@pytest.mark.parametrize("kernels", ALL)
def test_its_own_guesses_are_all_right(tiny_model: Path, kernels: str) -> None:
    """A greedy model guesses itself: each step makes as many tokens as there are in a draft, and one more."""
    one = request("x", list(range(10, 60)), 45, ignore_eos=True)
    expected = serve(load(tiny_model, kernels=kernels), [one])
    engine = load(tiny_model, draft_model=tiny_model, kernels=kernels)
    widths = widths_of(engine)
    assert serve(engine, [one]) == expected
    assert widths == [50, 1 + 4, 1 + 8, 1 + 8, 1 + 8, 1 + 8, 1 + 2]
    assert engine.snapshot().accepted_tokens == engine.snapshot().drafted_tokens == 38


@pytest.mark.parametrize("sampled", [False, True])
@pytest.mark.parametrize("which", ["same", "other"])
def test_together_as_without(tiny_model: Path, other_model: Path, which: str, sampled: bool) -> None:
    requests = requests_of(4, sampled=sampled)
    expected = serve(load(tiny_model), requests)
    engine = load(tiny_model, draft_model=tiny_model if which == "same" else other_model, draft_tokens=6)
    assert serve(engine, requests) == expected
    snapshot = engine.snapshot()
    assert snapshot.accepted_tokens > 0 if which == "same" else snapshot.drafted_tokens > 0
    drafter = drafter_of(engine)
    assert drafter._blocks.num_free == drafter._blocks.num_blocks


def test_a_draft_is_what_the_draft_model_finds_likeliest(tiny_model: Path, other_model: Path) -> None:
    engine = load(tiny_model, draft_model=other_model)
    prompt = list(range(10, 40))
    sequence = Sequence.from_request(GenerationRequest("x", TokenPrompt(tuple(prompt)), 60))
    alone = load(other_model)
    (draft,) = drafter_of(engine).draft([(sequence, 5)])
    assert draft == serve(alone, [request("x", prompt, 5, ignore_eos=True)])["x"].tokens
    # some are right, then comes another token
    sequence.tokens += [*draft[:2], 77]
    (draft,) = drafter_of(engine).draft([(sequence, 5)])
    assert draft == serve(alone, [request("x", sequence.tokens, 5, ignore_eos=True)])["x"].tokens
    # all are right
    sequence.tokens += [*draft, 78]
    (draft,) = drafter_of(engine).draft([(sequence, 3)])
    assert draft == serve(alone, [request("x", sequence.tokens, 3, ignore_eos=True)])["x"].tokens
    # tokens go back, over the end of a block
    sequence.take_back(9)
    drafter_of(engine).take_back(sequence)
    sequence.tokens += [80, 81]
    (draft,) = drafter_of(engine).draft([(sequence, 4)])
    assert draft == serve(alone, [request("x", sequence.tokens, 4, ignore_eos=True)])["x"].tokens
    # the same sequence once more: nothing was made of the draft
    assert drafter_of(engine).draft([(sequence, 4)]) == [draft]
    drafter_of(engine).check_integrity({"x": sequence})


@settings(max_examples=20, deadline=None)
@given(
    st.lists(
        st.lists(
            st.tuples(st.integers(0, 2), st.integers(1, 6), st.integers(0, 6), st.integers(0, 5)), max_size=3
        ),
        max_size=8,
    )
)
def test_drafts_do_not_depend_on_what_was_before(
    drafting: ModelDrafter, judging: ModelDrafter, steps: list[list[tuple[int, int, int, int]]]
) -> None:
    """However three sequences advance and go back, a draft is what a new drafter makes of the same tokens."""
    sequences = [
        Sequence.from_request(GenerationRequest(str(n), TokenPrompt((5, *range(9, 20 + n))), 90))
        for n in range(3)
    ]
    alive = {one.id: one for one in sequences}
    for step in steps:
        wanted = {number: (count, accepted, back) for number, count, accepted, back in step}
        drafts = drafting.draft([(sequences[number], count) for number, (count, _, _) in wanted.items()])
        for (number, (count, accepted, back)), draft in zip(wanted.items(), drafts, strict=True):
            sequence = sequences[number]
            assert [draft] == judging.draft([(sequence, count)])
            judging.forget(sequence)
            sequence.tokens += [*draft[:accepted], 200 + back]
            if 0 < back < sequence.generated:
                sequence.take_back(back)
                drafting.take_back(sequence)
        drafting.check_integrity(alive)
    for one in sequences:
        drafting.forget(one)
    drafting.check_integrity({})
    assert drafting._blocks.num_free == drafting._blocks.num_blocks


@pytest.fixture(scope="module")
def drafting(tiny_model: Path, other_model: Path) -> ModelDrafter:
    return drafter_of(load(tiny_model, draft_model=other_model, block_size=4))


@pytest.fixture(scope="module")
def judging(tiny_model: Path, other_model: Path) -> ModelDrafter:
    return drafter_of(load(tiny_model, draft_model=other_model, block_size=4))


def test_a_long_prompt_is_caught_up_with_under_the_budget(tiny_model: Path) -> None:
    engine = load(tiny_model, draft_model=tiny_model, token_budget=16)
    drafter = drafter_of(engine)
    widths: list[int] = []
    run = drafter._runner.run

    def measured(batch: Batch, *, recorded: bool = True) -> torch.Tensor:
        widths.append(len(batch.token_ids))
        return run(batch, recorded=recorded)

    drafter._runner.run = measured  # type: ignore[method-assign]
    one = request("x", list(range(5, 105)), 40, ignore_eos=True)
    assert serve(engine, [one]) == serve(load(tiny_model), [one])
    assert max(widths) == 16
    assert engine.snapshot().accepted_tokens > 20


def test_after_a_crowd_drafts_come_back(tiny_model: Path) -> None:
    requests = [
        replace(one, max_tokens=8 if int(one.request_id) else 60) for one in requests_of(6, sampled=False)
    ]
    expected = serve(load(tiny_model), requests)
    engine = load(tiny_model, draft_model=tiny_model)
    assert serve(engine, requests) == expected
    snapshot = engine.snapshot()
    assert snapshot.accepted_tokens > 30
    assert snapshot.last_accepted_tokens > 30


def test_a_full_cache_of_the_draft_model_costs_drafts_only(tiny_model: Path) -> None:
    requests = requests_of(4, sampled=False)
    expected = serve(load(tiny_model), requests)
    engine = load(tiny_model, draft_model=tiny_model)
    drafter = drafter_of(engine)
    drafter._blocks = BlockManager(7, 16)
    assert serve(engine, requests) == expected
    assert engine.snapshot().accepted_tokens > 0
    assert drafter._blocks.num_free == 7


def test_idle_followers_make_room(tiny_model: Path) -> None:
    drafter = drafter_of(load(tiny_model, draft_model=tiny_model))
    drafter._blocks = BlockManager(3, 16)
    one, other = (
        Sequence.from_request(GenerationRequest(name, TokenPrompt((place, *range(30))), 9))
        for name, place in (("one", 1), ("other", 2))
    )
    (first,) = drafter.draft([(one, 4)])
    assert len(first) == 4
    (second,) = drafter.draft([(other, 4)])
    assert len(second) == 4
    assert drafter.draft([(one, 4)]) == [first]
    assert sorted(map(len, drafter.draft([(one, 4), (other, 4)]))) == [0, 4]
    drafter.check_integrity({"one": one, "other": other})


def test_phrases_and_aborts(tiny_model: Path, other_model: Path) -> None:
    rng = random.Random(1)
    phrases = tuple("".join(rng.choices("abcdefghijklmnopqrstuvwxyz ", k=2)) for _ in range(200))
    requests = [
        request(str(n), [5 + n, 6], 48, SamplingParams(temperature=1.5, seed=n), banned_phrases=phrases)
        for n in range(4)
    ]
    plain = load(tiny_model)
    usual = recorded(plain)
    expected = serve(plain, requests)
    assert any(len(usual.drawn[name]) > one.completion_tokens for name, one in expected.items())
    engine = load(tiny_model, draft_model=other_model)
    told = {one.request_id: Told() for one in requests}
    for one in requests:
        engine.add(engine.prepare(one))
    for number in range(6):
        listen(engine, told)
        if number == 3:
            engine.abort("2")
            engine.check_integrity()
    while engine.has_work:
        listen(engine, told)
    assert {name: told[name] for name in "013"} == {name: expected[name] for name in "013"}
    assert drafter_of(engine)._blocks.num_free == drafter_of(engine)._blocks.num_blocks


def test_a_draft_model_alone_asks_for_eight(tiny_model: Path) -> None:
    assert EngineConfig(tiny_model).drafted_tokens == 0
    assert EngineConfig(tiny_model, draft_model=tiny_model).drafted_tokens == 8
    assert EngineConfig(tiny_model, draft_model=tiny_model, draft_tokens=3).drafted_tokens == 3
    assert load(tiny_model, draft_model=Path("unread"), draft_tokens=0)._speculator is None


def test_another_vocabulary_is_told_in_one_line(tiny_model: Path, tmp_path: Path) -> None:
    larger = write_llama(tmp_path / "larger.gguf", vocab_size=700)
    renamed = write_llama(tmp_path / "renamed.gguf", metadata=renamed_token(tiny_model))
    for path, message in (
        (larger, "vocabulary of 700 tokens, the model one of"),
        (renamed, "token 20 '<other>'"),
    ):
        with pytest.raises(ConfigError, match=message) as caught:
            load(tiny_model, draft_model=path)
        assert "\n" not in str(caught.value)


def renamed_token(path: Path) -> dict[str, list[str]]:
    tokenizer = load(path).tokenizer
    names = [tokenizer.text(number) for number in range(tokenizer.vocab_size)]
    return {"tokenizer.ggml.tokens": [*names[:20], "<other>", *names[21:]]}


@pytest.mark.parametrize("draft_tokens", [-1, 65])
def test_amounts_that_cannot_be(tiny_model: Path, draft_tokens: int) -> None:
    with pytest.raises(ConfigError, match=f"between 0 and 64, not {draft_tokens}"):
        EngineConfig(tiny_model, draft_tokens=draft_tokens)


def test_a_draft_file_that_is_no_model(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"not a model")
    with pytest.raises(ModelFileError, match=r"x\.gguf"):
        load(tiny_model, draft_model=tmp_path / "x.gguf")


def test_no_room_for_the_draft_models_cache(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = write_llama(tmp_path / "wide.gguf", n_layers=24)
    monkeypatch.setattr("engine.loading.available_bytes", lambda device: 2**21)
    with pytest.raises(ConfigError, match="the draft model's KV cache for 1024 tokens needs"):
        load(tiny_model, draft_model=wide)
