import pytest
from hypothesis import given, settings

from server.chat import reasoning
from server.chat.markers import Piece
from server.chat.reasoning import COHERE, GEMMA, HARMONY, MAGISTRAL, SEED, THINK, Family, Splitter, family_of
from tests.server.chat import templates
from tests.server.chat.cuttings import cuttings, of_words

FAMILIES = {
    "think": THINK,
    "seed": SEED,
    "magistral": MAGISTRAL,
    "cohere": COHERE,
    "gemma": GEMMA,
    "apertus": reasoning.APERTUS,
    "minicpm": reasoning.MINICPM,
    "hunyuan": reasoning.HUNYUAN,
}
OPEN_ROLE = "<|start|>assistant"
ANALYSIS = "<|channel|>analysis<|message|>"
FINAL = "<|channel|>final<|message|>"


def split(splitter: Splitter, *pieces: str) -> tuple[str, str]:
    """The thoughts and the answer of a whole reply."""
    parts: list[Piece] = []
    for piece in pieces:
        parts += splitter.push(piece)
    parts += splitter.flush()
    assert all(part.text for part in parts)
    thought = "".join(part.text for part in parts if part.thought)
    return thought, "".join(part.text for part in parts if not part.thought)


def start(family: Family, prompt: str = "", continued: str = "", tools: bool = False) -> Splitter:
    return family.splitter(prompt, continued, keep_tags=False, tools=tools)


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_thoughts_stand_between_the_familys_tags(family: Family) -> None:
    opening, closing = family.opening, family.closing
    assert split(start(family), f"{opening}\nHm, so.\n{closing}\n\nYes. ") == ("Hm, so.", "Yes. ")
    assert split(start(family, f"User: hi {opening}\n"), f"Hm.\n\n{closing}Yes.") == ("Hm.", "Yes.")
    assert split(start(family), f" \n{opening}{closing}\n\nYes.") == ("", "Yes.")
    assert split(start(family), f"{opening}Hm. ") == ("Hm.", "")
    assert split(start(family), f"{opening}a{closing}\n{opening}b{closing} c") == ("ab", "c")


@pytest.mark.parametrize("family", [*FAMILIES.values(), HARMONY])
@pytest.mark.parametrize("text", ["Yes.", " Yes, \n\nwell. ", "a < b", "\n", "to be"])
def test_a_text_without_tags_is_the_answer(family: Family, text: str) -> None:
    assert split(start(family), text) == ("", text)


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_a_tag_in_the_answer_is_spoken_of(family: Family) -> None:
    text = f"The tag {family.opening} opens and {family.closing} closes."
    assert split(start(family), text) == ("", text)


def test_only_what_may_become_a_tag_is_held_back() -> None:
    splitter = start(THINK)
    assert splitter.push("<thi") == []
    assert splitter.push("s is") == [Piece("<this is", False)]
    assert splitter.push(" all <think") == [Piece(" all <think", False)]
    assert splitter.flush() == []

    splitter = start(THINK)
    assert splitter.push("<think>") == []
    assert splitter.thinking
    assert splitter.push("I </t") == [Piece("I", True)]
    assert splitter.push("a>") == [Piece(" </ta>", True)]
    assert splitter.push("\n</think>") == []
    assert not splitter.thinking
    assert splitter.push("\n\n") == []
    assert splitter.push("So") == [Piece("So", False)]
    assert splitter.push(" so ") == [Piece(" so ", False)]


def test_coheres_tags_round_the_answer_vanish() -> None:
    reply = "<|START_THINKING|>Hm.<|END_THINKING|><|START_RESPONSE|>Yes.<|END_RESPONSE|>"
    assert split(start(COHERE), reply) == ("Hm.", "Yes.")
    assert split(start(COHERE), "<|START_RESPONSE|>Yes.<|END_RES") == ("", "Yes.<|END_RES")


@pytest.mark.parametrize(
    ("reply", "thought", "answer"),
    [
        (f"{ANALYSIS}Hm.<|end|><|start|>assistant{FINAL}Yes.", "Hm.", "Yes."),
        ("<|channel|>final<|message|>Yes.<|return|>", "", "Yes."),
        ("<|channel|>analysis<|message|>Hm", "Hm", ""),
        (f"{ANALYSIS}a<|end|><|start|>assistant{ANALYSIS}b", "a\n\nb", ""),
        (
            "<|channel|>commentary<|message|>Wait.<|end|><|start|>assistant<|channel|>final<|message|>Yes.",
            "",
            "Wait.\n\nYes.",
        ),
        ("<|channel|>analysis<|message|>Hm.<|end|><|start|>assis", "Hm.", ""),
        ("<|weird" + "x" * 300, "", "<|weird" + "x" * 300),
        ("<|channel|>" + "x" * 300, "", "<|channel|>" + "x" * 300),
        ("to=functions.f<|channel|>commentary json<|message|>{}<|call|>", "", "{}"),
    ],
)  # fmt: skip
def test_harmonys_channels(reply: str, thought: str, answer: str) -> None:
    assert split(start(HARMONY, OPEN_ROLE), reply) == (thought, answer)


@pytest.mark.parametrize(
    "header",
    [
        "<|channel|>commentary to=functions.get.time <|constrain|>json<|message|>",
        " to=functions.get.time<|channel|>commentary json<|message|>",
        "<|channel|>analysis to=functions.get.time code<|message|>",
    ],
)
def test_harmonys_calls_come_with_one_header(header: str) -> None:
    reply = f'{header}{{"a": 1}}<|call|>'
    called = '<|channel|>commentary to=functions.get.time <|constrain|>json<|message|>{"a": 1}<|call|>'
    assert split(start(HARMONY, OPEN_ROLE, tools=True), reply) == ("", called)
    thinking = f"<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant{reply}"
    assert split(start(HARMONY, OPEN_ROLE, tools=True), thinking) == ("Hm.", called)


def test_harmony_goes_on_in_the_message_that_the_prompt_is_in() -> None:
    final = f"{OPEN_ROLE}<|channel|>final<|message|>Once"
    assert split(start(HARMONY, final), " upon<|return|>") == ("", " upon")
    assert split(start(HARMONY, f"{OPEN_ROLE}<|channel|>analysis<|message|>"), "Hm.<|end|>") == ("Hm.", "")
    assert split(start(HARMONY, f"{final}<|end|>{OPEN_ROLE}"), "<|channel|>analysis<|message|>Hm") == (
        "Hm",
        "",
    )


@pytest.mark.parametrize(
    ("family", "reply"),
    [
        (THINK, "\n<think>\nHm.\n</think>\n\nYes."),
        (GEMMA, "<|channel>thought\nHm<channel|>Yes."),
        (
            HARMONY,
            "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Yes.",
        ),
    ],
)
def test_tags_can_be_kept(family: Family, reply: str) -> None:
    splitter = family.splitter("", "", keep_tags=True, tools=False)
    pieces = [piece for char in reply for piece in splitter.push(char)] + splitter.flush()
    assert "".join(piece.text for piece in pieces) == reply
    assert "".join(piece.text for piece in pieces if not piece.thought).strip() == "Yes."


WORDS = (
    *("<think>", "</think>", "<|START_THINKING|>", "<|END_THINKING|>", "<|START_RESPONSE|>", "<|END_TEXT|>"),
    *(
        "<|channel|>",
        "analysis",
        "final",
        "commentary",
        " to=functions.f ",
        "<|message|>",
        "<|end|>",
        "<|call|>",
    ),
    *("<|start|>assistant", "<|constrain|>json", " ", "\n\n", "Hm", "x" * 260),
)


@pytest.mark.parametrize("keep_tags", [False, True])
@pytest.mark.parametrize("family", [THINK, COHERE, HARMONY])
@pytest.mark.parametrize("prompt", ["", "<think>\n", "<|start|>assistant<|channel|>analysis<|message|>"])
@settings(max_examples=40)
@given(pieces=cuttings(of_words(*WORDS)))
def test_any_cutting_gives_the_same(family: Family, prompt: str, keep_tags: bool, pieces: list[str]) -> None:
    cut, whole = (family.splitter(prompt, "", keep_tags=keep_tags, tools=True) for _ in range(2))
    assert split(cut, *pieces) == split(whole, "".join(pieces))
    assert cut.thinking == whole.thinking


@given(of_words(*WORDS))
def test_nothing_is_lost_or_made_up(text: str) -> None:
    thought, answer = split(start(THINK), text)
    told = (thought + answer).replace("<think>", "").replace("</think>", "").split()
    assert "".join(told) == "".join(text.replace("<think>", "").replace("</think>", "").split())


@pytest.mark.parametrize(
    ("template", "family"),
    [
        (templates.QWEN_3, THINK),
        (templates.DEEPSEEK_R1, THINK),
        (templates.HARMONY, HARMONY),
        ("{{ '<seed:think>' }}{{ '</seed:think>' }}", SEED),
        ("<|START_THINKING|><|END_THINKING|></think>", COHERE),
        ("<|channel>thought\n<channel|>", GEMMA),
        ("[THINK][/THINK]", MAGISTRAL),
        ("<|begin|>assistant<|think|>{{ '<|end|>' }}<|content|>", reasoning.SOLAR),
        ("'<|open|>' + tag + '<|sep|>' '<|close|>'", reasoning.KIMI_3),
        ("{% set outer = '<|inner_suffix|>' %}", reasoning.APERTUS),
        ("<|thought_start|><|thought_end|>", reasoning.MINICPM),
        ("<think:opensource></think:opensource>", reasoning.HUNYUAN),
        ("'>>>all\n' + m.content", reasoning.FUNCTIONARY),
        ("<|user|>{{ m.content }}<|end|><|assistant|>", THINK),
        (templates.CHATML, THINK),
        (None, THINK),
    ],
)
def test_the_template_tells_the_family(template: str | None, family: Family) -> None:
    assert family_of(template) is family


@pytest.mark.parametrize(
    ("family", "reply"),
    [
        (reasoning.SOLAR, "<|think|>Hm.<|end|><|begin|>assistant<|content|>Yes.<|end|>"),
        (
            reasoning.KIMI_3,
            "<|open|>think<|sep|>Hm.<|close|>think<|sep|><|open|>response<|sep|>Yes.<|close|>response<|sep|>"
            "<|close|>message<|sep|>",
        ),
    ],
)
def test_tags_round_the_answer_vanish(family: Family, reply: str) -> None:
    for pieces in ((reply,), tuple(reply)):
        assert split(start(family), *pieces) == ("Hm.", "Yes.")


def test_a_thought_is_open_only_in_what_is_the_models_own() -> None:
    assert THINK.is_open("...assistant\n<think>\n")
    assert not THINK.is_open("What is <think>?\nassistant\n")
    assert not THINK.is_open("assistant\n<think>\n\n</think>\n\n")
    assert THINK.is_open("assistant\n<think>Hm", "<think>Hm")
    assert not THINK.is_open("assistant\nThe tag <think> is", "The tag <think> is")
    assert not THINK.is_open("assistant\n<think>Hm</think>Yes", "<think>Hm</think>Yes")
    assert HARMONY.is_open(f"{OPEN_ROLE}<|channel|>analysis<|message|>Hm")
    assert not HARMONY.is_open(f"{OPEN_ROLE}<|channel|>analysis<|message|>Hm<|end|>{OPEN_ROLE}")


@pytest.mark.parametrize("family", reasoning.FAMILIES)
def test_a_closed_thought_is_over(family: Family) -> None:
    opened = f"{OPEN_ROLE}{family.opening}"
    for tools in (False, True):
        closed = family.close(opened, "", tools=tools)
        assert closed.startswith(opened)
        assert not family.is_open(closed)
        assert family.close(closed, "", tools=tools) == closed
    reply = start(family, family.close(opened, "", tools=False))
    assert split(reply, "Yes.") == ("", "Yes.")


def test_harmonys_answer_is_begun_unless_a_call_is_to_come() -> None:
    assert HARMONY.close(OPEN_ROLE, "", tools=True) == OPEN_ROLE
    assert HARMONY.close(OPEN_ROLE, "", tools=False) == f"{OPEN_ROLE}<|channel|>final<|message|>"


@pytest.mark.parametrize("family", reasoning.FAMILIES)
@pytest.mark.parametrize("tools", [False, True])
def test_a_budgets_closing_ends_a_thought(family: Family, tools: bool) -> None:
    budget = family.budget(7, tools=tools)
    if budget is None:
        assert family is reasoning.FUNCTIONARY
        return
    assert budget.tokens == 7
    assert (budget.opening, budget.end) == (family.opening, family.closing)
    splitter = start(family, OPEN_ROLE)
    splitter.push(f"{budget.opening}Hm.")
    assert splitter.thinking
    splitter.push(budget.closing)
    assert not splitter.thinking
