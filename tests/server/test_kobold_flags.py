from collections import Counter

import pytest

from server import kobold_flags
from server.kobold_flags import IGNORED_FLAGS, IGNORED_KEYS, is_neutral, take_apart
from server.settings import Settings, flag


@pytest.mark.parametrize(
    ("said", "own", "ignored"),
    [
        ("serve --model m --skiplauncher --port 1", "serve --model m --port 1", "skiplauncher"),
        ("serve --gpulayers -1 --model m", "serve --gpulayers -1 --model m", ""),
        (
            "serve -ngl 99 -fa --tensor-split 7 3 --model m",
            "serve --gpulayers 99 --tensor-split 7,3 --model m",
            "flashattention",
        ),
        ("serve --tensor_split=7 3", "serve --tensor-split 7,3", ""),
        ("serve --gpulayers --quiet", "serve --gpulayers 1 --quiet", ""),
        ("serve --gpulayers=3 --model=m", "serve --gpulayers=3 --model=m", ""),
        ("serve --usecublas normal 0 mmq --model m", "serve --maingpu 0 --model m", ""),
        ("serve --usecuda 1", "serve --maingpu 1", ""),
        ("serve --usecuda=1 rowsplit", "serve --maingpu 1", ""),
        ("serve --usecuda all", "serve --maingpu -1", ""),
        ("serve --usecublas lowvram --model m", "serve --model m", "usecublas"),
        ("serve --usecublas --usevulkan 0 1", "serve", "usecublas usevulkan"),
        ("serve --usehipblas 1 --useclblast 0 0", "serve", "usehipblas useclblast"),
        ("serve -mg 1 --lowvram --nommq", "serve --maingpu 1", "lowvram nommq"),
        ("serve --quantkv q8_0 --quantkv 3", "serve --quantkv 1 --quantkv 0", ""),
        ("serve --quantkv=q4_0", "serve --quantkv 2", ""),
        ("serve --quantkv q9", "serve --quantkv q9", ""),
        ("serve --no-cuda", "serve --device cpu", ""),
        (
            "serve -m m -c 512 -t 2 -b 64",
            "serve --model m --contextsize 512 --threads 2 --blasbatchsize 64",
            "",
        ),
        ("serve --ctx-size=512", "serve --contextsize=512", ""),
        ("serve -md d --draft-n 6 -ngld 9", "serve --draftmodel d --draftamount 6", "draftgpulayers"),
        ("serve --multiuser --quiet", "serve --multiuser 10 --quiet", ""),
        ("serve --multiuser 3", "serve --multiuser 3", ""),
        ("serve --debugmode", "serve --debugmode", ""),
        ("serve --debugmode 1 --quiet", "serve --debugmode --quiet", ""),
        ("serve --debugmode=1", "serve --debugmode", ""),
        ("serve --debugmode -1", "serve --no-debugmode", ""),
        ("demo --usecpu --threads 1", "demo --device cpu --threads 1", ""),
        ("serve --ssl c k", "serve --ssl c k", ""),
        ("serve --no-such-flag 1 stray", "serve --no-such-flag 1 stray", ""),
        ("serve stray --launch", "serve stray", "launch"),
        ("serve --nommq=3 stray", "serve stray", "nommq"),
        ("bench --model m --lora l", "bench --model m --lora l", ""),
        ("convert --quantkv 1", "convert --quantkv 1", ""),
        ("", "", ""),
    ],
)
def test_a_command_line_is_taken_apart(said: str, own: str, ignored: str) -> None:
    arguments = take_apart(said.split())
    assert (" ".join(arguments.own), " ".join(arguments.ignored)) == (own, ignored)


def test_no_flag_of_ours_is_ignored() -> None:
    own = {flag(name).removeprefix("--") for name in Settings.model_fields} | {"config", "exportconfig"}
    assert not own & IGNORED_FLAGS.keys()
    assert all(name.startswith("-") for name in kobold_flags._OWN_NAMES)
    assert {target.removeprefix("--") for target in kobold_flags._OWN_NAMES.values()} <= own
    assert set(kobold_flags._OTHER_NAMES.values()) <= IGNORED_FLAGS.keys()
    assert not kobold_flags._OTHER_NAMES.keys() & kobold_flags._OWN_NAMES.keys()


def test_every_key_has_one_reason_in_one_line() -> None:
    groups = [*kobold_flags._REASONS.values(), *kobold_flags._ACTIONS.values()]
    assert max(Counter(key for group in groups for key in group.split()).values()) == 1
    assert all(
        reason and reason.isprintable() and not reason.endswith(".") for reason in IGNORED_KEYS.values()
    )
    assert kobold_flags._DEFAULTS.keys() <= IGNORED_KEYS.keys()


@pytest.mark.parametrize("action", ["--benchmark", "--prompt", "--cli", "--version", "--unpack"])
def test_who_asks_for_something_else_is_not_served(action: str) -> None:
    assert take_apart(["serve", action, "x"]).own == ("serve", action, "x")


@pytest.mark.parametrize(
    ("key", "value", "neutral"),
    [
        ("lora", None, True),
        ("lora", [], True),
        ("lora", ["a"], False),
        ("ropeconfig", [0.0, 10000.0], True),
        ("ropeconfig", [0.5, 10000.0], False),
        ("hordekey", "", True),
        ("usevulkan", [0], False),
        ("splitmode", "layer", True),
        ("splitmode", "row", False),
    ],
)
def test_what_nobody_touched_says_nothing(key: str, value: object, neutral: bool) -> None:
    assert is_neutral(key, value) is neutral
