import math
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from engine.types import (
    DEFAULT_SAMPLER_ORDER,
    UNTIL_END,
    GbnfGrammar,
    Grammar,
    JsonGrammar,
    Sampler,
    TokenLogprob,
)
from server.wire.body import describe
from server.wire.generation_fields import to_grammar
from server.wire.lenient import Count, Length, Name, Real, Seed, Texts, Truth, WireModel
from server.wire.logprobs import completion_logprobs
from server.wire.sampler_fields import NOT_YET, SamplerFields, asked_in_vain, to_sampling


class Part(WireModel):
    truth: Truth = True


class Sample(WireModel):
    real: Real = 0.5
    count: Count = 7
    seed: Seed = None
    truth: Truth = True
    texts: Texts = ()
    name: Name = ""
    length: Length = 9
    part: Part = Part(truth=False)


@pytest.mark.parametrize(
    ("field", "sent", "read"),
    [
        ("real", "1.5", 1.5),
        ("real", 2, 2.0),
        ("real", None, 0.5),
        ("real", True, 1.0),
        ("real", math.inf, sys.float_info.max),
        ("real", "-1e400", -sys.float_info.max),
        ("real", 5e-324, 5e-324),
        ("count", "1e999", 2**31 - 1),
        ("count", -math.inf, -(2**31 - 1)),
        ("length", math.inf, UNTIL_END),
        ("count", "12", 12),
        ("count", 12.7, 12),
        ("count", -5, -5),
        ("count", 10**30, 2**31 - 1),
        ("count", -(10**30), -(2**31 - 1)),
        ("count", None, 7),
        ("seed", "77", 77),
        ("seed", 0, None),
        ("seed", -1, None),
        ("seed", 2**32 + 5, 5),
        ("seed", None, None),
        ("truth", 0, False),
        ("truth", "false", False),
        ("truth", "true", True),
        ("truth", None, True),
        ("texts", "one", ("one",)),
        ("texts", ["a", None, "", "b"], ("a", "b")),
        ("texts", None, ()),
        ("texts", False, ()),
        ("texts", ["a", False], ("a",)),
        ("length", 0, 0),
        ("length", "12", 12),
        ("length", -1, UNTIL_END),
        ("length", "-2", UNTIL_END),
        ("length", -1.0, UNTIL_END),
        ("length", -3, -3),
        ("part", [], Part()),
        ("part", {"truth": 0}, Part(truth=False)),
        ("name", 5, "5"),
    ],
)
def test_lenient_values(field: str, sent: Any, read: Any) -> None:
    assert getattr(Sample.model_validate({field: sent, "unknown": 1}), field) == read


@pytest.mark.parametrize(
    ("field", "sent"),
    [
        ("real", "warm"),
        ("real", [1]),
        ("real", float("nan")),
        ("real", "nan"),
        ("count", {}),
        ("count", "nan"),
        ("length", math.nan),
        ("seed", []),
        ("texts", [7]),
        ("texts", 7),
        ("texts", True),
        ("texts", [True]),
        ("part", [1]),
        ("name", []),
    ],
)
def test_nonsense_is_refused_by_name(field: str, sent: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        Sample.model_validate({field: sent})
    assert describe(caught.value).startswith(f"{field}: ")


def sampling(**fields: Any) -> Any:
    return to_sampling(SamplerFields.model_validate(fields))


def test_defaults_are_those_of_koboldcpp() -> None:
    params = sampling()
    assert (params.temperature, params.top_k, params.top_p, params.min_p) == (0.7, 100, 0.92, 0.0)
    assert (params.rep_pen, params.rep_pen_range, params.rep_pen_slope) == (1.0, 320, 1.0)
    assert params.seed is None


def test_zero_is_not_absent() -> None:
    assert sampling(temperature=0, top_k=0, top_p=0).temperature == 0.0


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"rep_pen": 1.1, "repetition_penalty": 1.3, "repeat_penalty": 1.2}, 1.3),
        ({"rep_pen": 0.5}, 1.0),
    ],
)
def test_the_largest_repetition_penalty_counts(fields: dict[str, Any], expected: float) -> None:
    assert sampling(**fields).rep_pen == expected


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ([6, 0], (Sampler.REP_PEN, Sampler.TOP_K)),
        ([9, 0], (Sampler.TOP_K,)),
        ([], DEFAULT_SAMPLER_ORDER),
        (None, DEFAULT_SAMPLER_ORDER),
        ([6, 0, 1, 3, 4, 2, 5, 5], DEFAULT_SAMPLER_ORDER),
        (["a"], DEFAULT_SAMPLER_ORDER),
    ],
)
def test_sampler_order(order: Any, expected: tuple[Sampler, ...]) -> None:
    assert sampling(sampler_order=order).order == expected


def test_biases_and_bans() -> None:
    params = sampling(logit_bias={"5": 1, "x": 2, "7": -1000, "8": "nan"}, custom_token_bans="9, 10,,x")
    assert params.logit_bias == ((5, 1.0), (7, -100.0), (9, -100.0), (10, -100.0))
    assert params.text_bias == (("x", 2.0),)


@pytest.mark.parametrize(
    ("sent", "ids", "texts"),
    [
        ([[5, 1], ["5", 2], ["a b", "-3"]], ((5, 1.0),), (("5", 2.0), ("a b", -3.0))),
        ([[5, False], ["x", False], [6, True]], ((5, -math.inf),), (("x", -math.inf),)),
        ({"5": False, "x": False, "6": True}, ((5, -math.inf),), (("x", -math.inf),)),
        ({"5": math.inf, "6": -math.inf, "7": math.nan}, ((5, 100.0), (6, -math.inf)), ()),
        ({" 5": 1, "+6": 1, "-7": 1, "5 ": 2}, ((5, 1.0), (6, 1.0), (-7, 1.0)), (("5 ", 2.0),)),
        ([5, [5], [5, 1, 2], [None, 1], [True, 1], [5.0, 1], ["", 1], [[], 1], ["x" * 257, 1]], (), ()),
        ([], (), ()),
        (False, (), ()),
        ("5", (), ()),
    ],
)
def test_forms_of_biases(sent: Any, ids: Any, texts: Any) -> None:
    params = sampling(logit_bias=sent)
    assert (params.logit_bias, params.text_bias) == (ids, texts)


def test_a_later_bias_of_the_same_token_counts_and_bans_go_last() -> None:
    params = sampling(logit_bias=[[5, 1], [5, 2], [6, 3]], custom_token_bans="6")
    assert params.logit_bias == ((5, 2.0), (6, -100.0))


@pytest.mark.parametrize("sent", ["5,7", [5, 7], [5, "x", 7, True, None]])
def test_forms_of_bans(sent: Any) -> None:
    assert sampling(custom_token_bans=sent).logit_bias == ((5, -100.0), (7, -100.0))


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        (["a", 7, "b"], ("a", "b")),
        ('["\\n", "b"]', ("\n", "b")),
        (' ["b"]', ("b",)),
        ('"\\n", ":", "*"', ("\n", ":", "*")),
        ('"b"', ("b",)),
        ("b", ()),
        ('["b"', ()),
        ("", ()),
        (None, ()),
        (5, ()),
    ],
)
def test_forms_of_breakers(sent: Any, read: Any) -> None:
    assert sampling(dry_sequence_breakers=sent).dry_sequence_breakers == read


@pytest.mark.parametrize("neutral", [{}, {"guidance_scale": 1}, {"guidance_scale": "1.0", "mirostat": 2}])
def test_what_asks_for_nothing_is_not_asked_in_vain(neutral: dict[str, Any]) -> None:
    assert asked_in_vain(SamplerFields.model_validate(neutral), NOT_YET) == {}


def test_what_is_asked_in_vain_is_known() -> None:
    wanted = {"guidance_scale": 1.5, "negative_prompt": "x"}
    vain = asked_in_vain(SamplerFields.model_validate(wanted), NOT_YET)
    assert vain == {"guidance_scale": NOT_YET["guidance_scale"].reason}


@pytest.mark.parametrize(
    ("text", "grammar"),
    [
        ("", None),
        (" \n", None),
        ('root ::= "a"', GbnfGrammar('root ::= "a"')),
        ("# {\nroot ::= [a]", GbnfGrammar("# {\nroot ::= [a]")),
        ('{"type": "object"}', JsonGrammar('{"type": "object"}')),
        ('\n {"type"', JsonGrammar('\n {"type"')),
    ],
)
def test_grammars_are_gbnf_or_schemas(text: str, grammar: Grammar | None) -> None:
    assert to_grammar(text) == grammar


def test_offsets_count_characters() -> None:
    pieces = "é日 a"
    tokens = [TokenLogprob(number, piece.encode(), -0.5) for number, piece in enumerate(pieces)]
    told = completion_logprobs(tokens, 7)
    assert told["tokens"] == list(pieces)
    assert told["text_offset"] == [7, 8, 9, 10]
