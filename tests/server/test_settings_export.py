import json
import os
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import ConfigError
from server.settings import Settings, load_settings
from server.settings_export import export_settings, toml_text

ALL: dict[str, Any] = {
    "model": 'a "b" \\ \x7f\t.gguf',
    "host": "::1",
    "port": 0,
    "contextsize": 100,
    "threads": 3,
    "device": "cuda:1",
    "kernels": "portable",
    "gpulayers": 12,
    "tensor_split": [7.0, 3.5],
    "maingpu": 2,
    "quantkv": 2,
    "parallelrequests": 1,
    "multiuser": 0,
    "blasbatchsize": 16,
    "kvtokens": 5,
    "defaultgenamt": 6,
    "genlimit": 7,
    "noshift": True,
    "draftmodel": "d",
    "draftamount": 8,
    "maxrequestsize": 8,
    "password": "hush-hush",
    "password_file": "w",
    "trusted_proxies": ["10.0.0.2", "172.16.0.0/12"],
    "allowed_hosts": ["nkat.example"],
    "ssl": ["c", "k"],
    "jinja": False,
    "chatcompletionsadapter": "ChatML",
    "special_in_messages": True,
    "lite": "l",
    "preloadstory": "p",
    "savedatafile": "s",
    "theta": False,
    "theta_path": "t",
    "theta_gamma": 1e-7,
    "quiet": True,
    "debugmode": True,
}
"""Every setting with another value than its default."""


def without_password(settings: Settings) -> dict[str, Any]:
    return settings.model_dump(exclude={"password"})


def test_all_settings_are_tried() -> None:
    assert ALL.keys() == Settings.model_fields.keys()
    defaults = Settings().model_dump(mode="json")
    assert all(ALL[name] != defaults[name] for name in ALL)


@pytest.mark.parametrize("values", [{}, ALL], ids=["defaults", "all"])
@pytest.mark.parametrize("name", ["f.toml", "f.kcpps", "F.TOML"])
def test_what_is_exported_is_what_is_loaded(tmp_path: Path, values: dict[str, Any], name: str) -> None:
    settings = Settings(**values)
    path = tmp_path / name
    export_settings(settings, path)
    loaded = load_settings({}, path)
    assert without_password(loaded) == without_password(settings)
    assert loaded.password is None
    assert loaded.ignored == {}
    assert "hush-hush" not in path.read_text(encoding="utf-8")
    assert path.stat().st_mode & 0o077 == 0
    assert os.listdir(tmp_path) == [name]


def test_kobold_reads_its_own_keys(tmp_path: Path) -> None:
    path = tmp_path / "f.kcpps"
    export_settings(Settings(**ALL), path)
    keys = json.loads(path.read_text(encoding="utf-8"))
    assert keys["model_param"] == ALL["model"]
    assert (keys["port_param"], keys["batchsize"], keys["debugmode"], keys["usecpu"]) == (0, 16, 1, False)
    assert keys["ssl"] == ["c", "k"]
    assert (keys["gpulayers"], keys["tensor_split"], keys["maingpu"], keys["quantkv"]) == (
        12,
        [7.0, 3.5],
        2,
        2,
    )
    assert "usecublas" not in keys
    assert "device" not in keys, "a list of llama.cpp's devices in KoboldCpp"


@pytest.mark.parametrize("name", ["f", "f.yaml", "no/such/folder/f.toml"])
def test_where_it_cannot_be_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        export_settings(Settings(), tmp_path / name)
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    settings = Settings(model=Path(os.fsdecode(b"\xff.gguf")))
    with pytest.raises(ConfigError, match="UTF-8"):
        export_settings(settings, tmp_path / "f.toml")
    export_settings(settings, tmp_path / "f.kcpps")
    assert load_settings({}, tmp_path / "f.kcpps").model == settings.model


@settings(deadline=None)
@given(
    st.fixed_dictionaries(
        {
            "model": st.text(st.characters(exclude_categories=["Cs"])),
            "ssl": st.lists(
                st.text(st.characters(exclude_categories=["Cs"]), max_size=9), min_size=2, max_size=2
            ),
            "theta_gamma": st.floats(0, 1),
            "port": st.integers(0, 65535),
            "quiet": st.booleans(),
        }
    )
)
def test_every_text_is_toml(values: dict[str, Any]) -> None:
    assert tomllib.loads(toml_text(values, ["heading"])) == values
