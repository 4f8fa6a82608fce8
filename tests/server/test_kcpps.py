import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import ConfigError
from server.kcpps import MOST_KEYS, OWN_PREFIX, kcpps_text, parse_kcpps
from server.kobold_flags import IGNORED_KEYS
from server.settings import Settings, load_settings

UNTOUCHED: dict[str, Any] = {
    "model": [],
    "model_param": "C:/models/bear.gguf",
    "port": 5001,
    "port_param": 5001,
    "host": "",
    "launch": False,
    "config": None,
    "threads": 7,
    "usecublas": None,
    "usevulkan": None,
    "useclblast": None,
    "usecpu": False,
    "contextsize": 4096,
    "gpulayers": -1,
    "tensor_split": None,
    "ropeconfig": [0.0, 10000.0],
    "blasbatchsize": 512,
    "blasthreads": 0,
    "lora": None,
    "loramult": 1.0,
    "noshift": False,
    "nofastforward": False,
    "usemmap": False,
    "usemlock": False,
    "noavx2": False,
    "failsafe": False,
    "debugmode": 0,
    "onready": "",
    "benchmark": None,
    "prompt": "",
    "multiuser": 1,
    "multiplayer": False,
    "websearch": False,
    "remotetunnel": False,
    "highpriority": False,
    "foreground": False,
    "preloadstory": "",
    "savedatafile": "",
    "quiet": False,
    "ssl": None,
    "nocertify": False,
    "mmproj": "",
    "draftmodel": "",
    "draftamount": 8,
    "draftgpulayers": 999,
    "password": None,
    "chatcompletionsadapter": "AutoGuess",
    "jinja": False,
    "flashattention": False,
    "quantkv": 0,
    "smartcontext": False,
    "hordemodelname": "",
    "hordemaxctx": 0,
    "hordegenlen": 0,
    "sdmodel": "",
    "sdtiledvae": 768,
    "sdloramult": 1.0,
    "whispermodel": "",
    "ttsmaxlen": 4096,
    "admin": False,
    "maxrequestsize": 32,
    "parallelrequests": 1,
    "genlimit": 0,
    "istemplate": False,
}
"""A file as KoboldCpp writes it for somebody who chose a model and nothing else."""


def write(folder: Path, content: Any, name: str = "my.kcpps") -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def read(**keys: Any) -> dict[str, Any]:
    values, ignored = parse_kcpps(json.dumps(keys), "f")
    assert ignored == {}
    return values


def test_a_file_of_somebody_who_chose_a_model(tmp_path: Path) -> None:
    settings = load_settings({}, write(tmp_path, UNTOUCHED))
    expected = Settings(model=Path("C:/models/bear.gguf"), threads=7, contextsize=4096)
    assert settings.model_dump() == expected.model_dump()
    assert list(settings.ignored) == [f"host in {tmp_path / 'my.kcpps'}"]


@pytest.mark.parametrize(
    ("keys", "values"),
    [
        ({"model": "a", "model_param": ""}, {"model": "a"}),
        ({"model_param": "b", "model": "a"}, {"model": "b"}),
        ({"model": ["a-00001", "a-00002"]}, {"model": "a-00001"}),
        ({"model": []}, {}),
        ({"port_param": 6000, "port": 7000}, {"port": 6000}),
        ({"port_param": 5001, "port": 7000}, {"port": 7000}),
        ({"host": "0.0.0.0"}, {"host": "0.0.0.0"}),
        ({"threads": -1, "genlimit": 0, "maxrequestsize": 0, "contextsize": None}, {}),
        ({"multiuser": 5}, {"multiuser": 5}),
        ({"multiuser": -2}, {"multiuser": 0}),
        ({"parallelrequests": 4}, {"parallelrequests": 4}),
        ({"batchsize": 128, "blasbatchsize": 64}, {"blasbatchsize": 128}),
        ({"password": ""}, {}),
        ({"password": "k"}, {"password": "k"}),
        ({"debugmode": 1}, {"debugmode": True}),
        ({"debugmode": -1}, {"debugmode": False}),
        ({"debugmode": True}, {"debugmode": True}),
        ({"usecpu": True}, {"device": "cpu"}),
        ({"usecpu": False}, {}),
        ({"ssl": ["c", "k"]}, {"ssl": ["c", "k"]}),
        ({"ssl": ["", ""]}, {}),
        ({"ssl": []}, {}),
        ({"chatcompletionsadapter": "ChatML"}, {"chatcompletionsadapter": "ChatML"}),
        ({"chatcompletionsadapter": {"user_start": "U"}}, {"chatcompletionsadapter": '{"user_start": "U"}'}),
        ({"jinja": True, "noshift": True}, {"jinja": True, "noshift": True}),
        ({"draftmodel": "d.gguf", "draftamount": 8}, {"draftmodel": "d.gguf"}),
        ({"draftmodel": "", "draftamount": 4}, {}),
        ({"draftamount": 0}, {}),
        ({"draftamount": 12}, {"draftamount": 12}),
        ({"draftamount": 8, "nkat_draftamount": 8}, {"draftamount": 8}),
        ({"defaultgenamt": 100, "genlimit": 200}, {"defaultgenamt": 100, "genlimit": 200}),
        ({"preloadstory": "s.json", "savedatafile": "d"}, {"preloadstory": "s.json", "savedatafile": "d"}),
        ({"gpulayers": -1, "maingpu": -1, "tensor_split": None, "usecublas": None}, {}),
        ({"tensor_split": [], "usecuda": [], "gpulayers": None, "quantkv": None}, {}),
        ({"gpulayers": 0}, {"gpulayers": 0}),
        ({"gpulayers": 33, "tensor_split": [7, 3.5]}, {"gpulayers": 33, "tensor_split": [7, 3.5]}),
        ({"usecublas": ["normal", "0", "mmq"]}, {"maingpu": 0}),
        ({"usecuda": ["1"], "usecublas": ["2"]}, {"maingpu": 1}),
        ({"usecuda": ["all", "mmq"]}, {}),
        ({"maingpu": 3, "usecuda": ["1"], "usecublas": ["2"]}, {"maingpu": 3}),
        ({"maingpu": -1, "usecuda": [1]}, {"maingpu": 1}),
        ({"quantkv": 0}, {"quantkv": 0}),
        ({"quantkv": "q8_0"}, {"quantkv": 1}),
        ({"quantkv": "2"}, {"quantkv": 2}),
        ({"quantkv": 3}, {"quantkv": 0}),
        ({"nkat_theta": False, "nkat_kernels": "avx2"}, {"theta": False, "kernels": "avx2"}),
        ({"parallelrequests": 1, "nkat_parallelrequests": 1}, {"parallelrequests": 1}),
    ],
)
def test_keys_and_settings(keys: dict[str, Any], values: dict[str, Any]) -> None:
    assert read(**keys) == values
    assert read(**dict(reversed(keys.items()))) == values, "the order of keys in a file means nothing"


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("splitmode", "row", "each as a whole"),
        ("lowvram", True, "where their layers are"),
        ("usecublas", ["normal", "mmq"], "where there are any"),
        ("usevulkan", [0], "CUDA devices and on the processor"),
        ("device", "CUDA0", "--device"),
        ("blasbatchsize", -1, "batches"),
        ("host", "", "0.0.0.0"),
        ("preloadstory", {"gamestarted": True}, "file name"),
        ("hordegenlen", 400, "Horde"),
        ("benchmark", "stdout", "nkat bench"),
        ("turbo", 9, "not known to NKAT"),
    ],
)
def test_what_has_no_effect_is_told_with_the_reason(key: str, value: Any, reason: str) -> None:
    values, ignored = parse_kcpps(json.dumps({key: value}), "f")
    assert values == {}
    assert list(ignored) == [key]
    assert reason in ignored[key]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not JSON"),
        ("[1]", "no JSON object"),
        ("[" * 100_000, "not JSON"),
        ('{"port": ' + "9" * 5000 + "}", "not JSON"),
        ({"port": "5001"}, "bad value for port"),
        ({"port": 1.5}, "a whole number"),
        ({"port": True}, "a whole number"),
        ({"port": 70000}, "65535"),
        ({"draftamount": 65}, "less than or equal to 64"),
        ({"draftmodel": 8}, "a text"),
        ({"draftmodel": "https://huggingface.co/d.gguf"}, "nothing is downloaded"),
        ({"quiet": 1}, "true or false"),
        ({"gpulayers": "33"}, "a whole number"),
        ({"gpulayers": 10**30}, "less than or equal to 9999"),
        ({"tensor_split": "7 3"}, "a list of numbers"),
        ({"tensor_split": [True]}, "a list of numbers"),
        ({"tensor_split": [0, 0]}, "not all 0"),
        ({"tensor_split": [1] * 1000}, "16 shares"),
        ({"usecuda": "0"}, "a list of words"),
        ({"usecuda": [["0"]]}, "a list of words"),
        ({"quantkv": "q9"}, "one of f16"),
        ({"quantkv": True}, "one of f16"),
        ({"model": [3]}, "a text"),
        ({"model": "https://huggingface.co/m.gguf"}, "nothing is downloaded"),
        ({"ssl": ["c"]}, "two files"),
        ({"ssl": "c k"}, "two files"),
        ({"contextsize": [[[[[[[[1]]]]]]]] * 1000}, "bad value for contextsize"),
        ({"nkat_turbo": 1}, "unknown setting 'turbo'"),
        ({"nkat_theta": "maybe"}, "bad value for theta"),
        ({str(number): 1 for number in range(MOST_KEYS + 1)}, "keys"),
        ({"": "x" * (1 << 20)}, "larger than 1 MB"),
    ],
)
def test_a_bad_file_is_one_line(tmp_path: Path, content: Any, words: str) -> None:
    path = write(tmp_path, content)
    with pytest.raises(ConfigError) as caught:
        load_settings({}, path)
    message = str(caught.value)
    assert words in message
    assert "my.kcpps" in message
    assert message.isprintable()
    assert len(message) < 800


def test_a_password_is_not_repeated(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings({}, write(tmp_path, {"password": 987654}))
    assert "987654" not in str(caught.value)


@pytest.mark.parametrize("name", ["f.kcpps", "f.KCPPT", "f.json", "f.toml", "f"])
def test_json_is_known_by_name_or_content(tmp_path: Path, name: str) -> None:
    assert load_settings({}, write(tmp_path, "\ufeff\n {}", name)) == Settings()
    assert load_settings({}, write(tmp_path, '{"port": 6}', name)).port == 6


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(
    sorted(UNTOUCHED) + sorted(IGNORED_KEYS) + [OWN_PREFIX + name for name in Settings.model_fields]
)


@settings(deadline=None)
@given(st.dictionaries(KEYS | st.text(), JSON_VALUES, max_size=6))
def test_any_object_is_settings_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, keys: dict[str, Any]
) -> None:
    path = write(tmp_path_factory.getbasetemp(), keys)
    message, ignored = "", set()
    try:
        ignored = set(load_settings({}, path).ignored)
    except ConfigError as error:
        message = str(error)
    assert "\n" not in message
    assert ignored <= {f"{key} in {path}" for key in keys}


VALUES = st.fixed_dictionaries(
    {},
    optional={
        "model": st.text(min_size=1),
        "host": st.text(min_size=1),
        "port": st.integers(0, 65535),
        "device": st.sampled_from(["auto", "cpu", "cuda:1"]),
        "gpulayers": st.integers(-1, 9999),
        "tensor_split": st.lists(st.floats(0.1, 1e6), min_size=1, max_size=16),
        "maingpu": st.integers(-1, 99),
        "quantkv": st.integers(0, 2),
        "parallelrequests": st.integers(1, 256),
        "multiuser": st.integers(0, 1024),
        "blasbatchsize": st.integers(16, 65536),
        "contextsize": st.integers(1),
        "chatcompletionsadapter": st.sampled_from(["", "AutoGuess", "ChatML"]),
        "jinja": st.booleans(),
        "theta": st.booleans(),
        "theta_gamma": st.floats(0, 1),
        "ssl": st.lists(st.text(), min_size=2, max_size=2),
        "quiet": st.booleans(),
        "debugmode": st.booleans(),
    },
)


@settings(deadline=None)
@given(VALUES)
def test_what_is_written_is_what_is_read(values: dict[str, Any]) -> None:
    text = kcpps_text(values)
    assert parse_kcpps(text, "f")[0] == values
    assert text.isascii()
