import os
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from engine.errors import ConfigError
from server.kobold_flags import IGNORED_KEYS
from server.settings import FILE_LIMIT, Settings, flag, load_settings, read_settings_file
from server.settings_export import sample_settings

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in tuple(os.environ):
        if name.startswith("NKAT_") or name == "KCPP_PASSWORD":
            monkeypatch.delenv(name)


def write(folder: Path, text: str) -> Path:
    path = folder / "settings.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_flags_before_environment_before_file_before_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path, "port = 1\nthreads = 1\ncontextsize = 1024\n")
    monkeypatch.setenv("NKAT_PORT", "2")
    monkeypatch.setenv("NKAT_THREADS", "2")
    settings = load_settings({"port": 3}, file)
    assert (settings.port, settings.threads, settings.contextsize) == (3, 2, 1024)
    assert settings.host == "127.0.0.1"


def test_the_environment_may_name_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NKAT_CONFIG", str(write(tmp_path, "port = 7\n")))
    assert load_settings({}).port == 7


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("prot = 1\n", ("unknown setting 'prot'", "port", "settings.toml")),
        ("port = 99999\n", ("bad value for port in", "65535")),
        ("port = \n", ("not TOML",)),
        ("port = 1\n" * 2, ("not TOML",)),
        ("a = " + "[" * 100_000, ("not TOML",)),
        ("#" * (FILE_LIMIT + 1), ("larger than 1 MB",)),
        ('model = "http://host/m.gguf"\n', ("bad value for model", "nothing is downloaded")),
        ('ssl = ["c"]\n', ("bad value for ssl", "two PEM files")),
        ('password = "  "\n', ("bad value for password", "spaces")),
        ('{"password": "\\udc80"}', ("bad value for password", "utf-8")),
        (f'device = "{"g" * 5000}"\n', ("bad value for device", "cuda:N")),
        ('device = "gpu"\n', ("bad value for device", "cuda:N")),
    ],
)
def test_a_bad_file_is_fatal_in_one_line(tmp_path: Path, text: str, words: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings({}, write(tmp_path, text))
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 800
    assert all(word in message for word in words)


def test_an_endless_file_is_refused() -> None:
    with pytest.raises(ConfigError, match="larger than 1 MB"):
        load_settings({}, Path("/dev/zero"))


def test_an_unknown_variable_is_fatal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NKAT_PROT", "1")
    with pytest.raises(ConfigError, match="NKAT_PROT"):
        load_settings({})


def test_variables_of_the_installation_are_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NKAT_NATIVE", "0")
    monkeypatch.setenv("NKAT_REQUIRE_NATIVE", "1")
    assert load_settings({}).port == 5001


def test_a_bad_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NKAT_PORT", "many")
    with pytest.raises(ConfigError, match="NKAT_PORT"):
        load_settings({})


def test_a_name_of_two_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An underscore in files and in the environment, a dash in flags."""
    file = write(tmp_path, 'theta_path = "a.bin"\ntheta_gamma = 0.9\ntheta = false\n')
    monkeypatch.setenv("NKAT_THETA_GAMMA", "0.95")
    config = load_settings({"theta_path": Path("b.bin"), "model": Path("m.gguf")}, file).engine_config()
    assert (config.theta, config.theta_path, config.gamma) == (False, Path("b.bin"), 0.95)
    with pytest.raises(ConfigError, match="bad value for --theta-gamma"):
        load_settings({"theta_gamma": 2.0})
    monkeypatch.setenv("NKAT_THETA_GAMMA", "nan")
    with pytest.raises(ConfigError, match="bad value for NKAT_THETA_GAMMA"):
        load_settings({})


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        load_settings({}, tmp_path / "none.toml")


def test_settings_are_frozen_and_hide_the_password() -> None:
    settings = Settings(password=SecretStr("hush"))
    assert "hush" not in repr(settings)
    with pytest.raises(ValidationError):
        settings.port = 1
    with pytest.raises(ConfigError) as caught:
        load_settings({"password": ""})
    assert "password" in str(caught.value)


@pytest.mark.parametrize(
    ("flags", "own", "in_file", "password"),
    [
        ({}, None, "", "kobold"),
        ({}, None, 'password = "file"\n', "file"),
        ({}, "own", 'password = "file"\n', "own"),
        ({"password": "flag"}, "own", 'password = "file"\n', "flag"),
    ],
)
def test_kobolds_password_counts_where_there_is_no_other(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    flags: dict[str, str],
    own: str | None,
    in_file: str,
    password: str,
) -> None:
    monkeypatch.setenv("KCPP_PASSWORD", "kobold")
    if own is not None:
        monkeypatch.setenv("NKAT_PASSWORD", own)
    found = load_settings(flags, write(tmp_path, in_file)).password
    assert found is not None
    assert found.get_secret_value() == password


def test_an_empty_password_of_kobolds_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KCPP_PASSWORD", "")
    assert load_settings({}).password is None
    monkeypatch.setenv("KCPP_PASSWORD", " ")
    with pytest.raises(ConfigError, match="KCPP_PASSWORD"):
        load_settings({})


@pytest.mark.parametrize("text", ["my.crt 'my key.pem'", '["my.crt", "my key.pem"]'])
def test_the_environment_names_two_files(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("NKAT_SSL", text)
    assert load_settings({}).ssl == (Path("my.crt"), Path("my key.pem"))


@pytest.mark.parametrize("text", ["7,3", "7 3", "[7, 3]", "[7.0, 3.0]"])
def test_shares_in_the_environment(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("NKAT_TENSOR_SPLIT", text)
    assert load_settings({}).tensor_split == (7.0, 3.0)
    monkeypatch.setenv("NKAT_TENSOR_SPLIT", "7")
    assert load_settings({}).tensor_split == (7.0,)


@pytest.mark.parametrize("shares", ["", "a", "0,0", "-1", "nan", [], [0], [1, "b"], [-1.0], "1," * 17])
def test_shares_that_make_no_sense(shares: object) -> None:
    with pytest.raises(ConfigError, match="bad value for --tensor-split") as caught:
        load_settings({"tensor_split": shares})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["my.crt", "a b c", "'a", ""])
def test_the_environment_names_no_other_number_of_files(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("NKAT_SSL", text)
    with pytest.raises(ConfigError, match="bad value for NKAT_SSL"):
        load_settings({})


def test_files_of_the_users_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    settings = Settings(ssl=("~/c", "~/k"), lite="~/l", preloadstory="~/p", savedatafile="~/s")  # type: ignore[arg-type]
    found = [*(settings.ssl or ()), settings.lite, settings.preloadstory, settings.savedatafile]
    assert [str(path) for path in found] == [f"/home/ann/{name}" for name in "cklps"]
    with pytest.raises(ConfigError, match="bad value for --lite"):
        load_settings({"lite": "~nobody-of-that-name/l"})


@pytest.mark.parametrize(
    ("adapter", "jinja", "used"),
    [("", True, ""), ("", False, "AutoGuess"), ("ChatML", True, "ChatML"), ("ChatML", False, "ChatML")],
)
def test_which_adapter_is_used(adapter: str, jinja: bool, used: str) -> None:
    assert Settings(chatcompletionsadapter=adapter, jinja=jinja).adapter == used


def test_flags_without_effect_are_remembered() -> None:
    settings = load_settings({}, None, ("nommq", "skiplauncher"))
    assert list(settings.ignored) == ["--nommq", "--skiplauncher"]
    assert settings.model_copy(update={"port": 1}).ignored == settings.ignored


def test_a_model_is_needed_to_run() -> None:
    with pytest.raises(ConfigError, match="--model"):
        Settings().engine_config()


def test_the_engine_is_told(tmp_path: Path) -> None:
    config = Settings(
        model=tmp_path / "m.gguf", contextsize=64, threads=2, parallelrequests=3
    ).engine_config()
    assert (config.context_length, config.threads, config.max_sequences) == (64, 2, 3)
    placed = Settings(model=Path("m"), gpulayers=7, tensor_split=(2, 1), maingpu=1).engine_config()
    assert (placed.gpu_layers, placed.tensor_split, placed.main_gpu) == (7, (2.0, 1.0), 1)
    assert config.context_shift
    assert (config.quantkv, Settings(model=Path("m"), quantkv=2).engine_config().quantkv) == (0, 2)
    assert not Settings(model=Path("m"), noshift=True).engine_config().context_shift
    assert config.drafted_tokens == 0
    assert Settings(model=Path("m"), draftamount=3).engine_config().drafted_tokens == 3
    drafting = Settings(model=Path("m"), draftmodel=tmp_path / "d.gguf").engine_config()
    assert (drafting.draft_model, drafting.drafted_tokens) == (tmp_path / "d.gguf", 8)


@pytest.mark.parametrize(("multiuser", "capacity"), [(0, 4), (1, 14), (2, 5), (7, 10)])
def test_capacity_counts_those_that_wait(multiuser: int, capacity: int) -> None:
    assert Settings(parallelrequests=4, multiuser=multiuser).capacity == capacity


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.name)
def test_every_settings_file_loads(path: Path) -> None:
    values, ignored = read_settings_file(path)
    assert values
    assert not ignored
    load_settings({}, path)


def test_the_sample_is_generated_from_the_defaults() -> None:
    assert (CONFIGS / "nkat.example.toml").read_text(encoding="utf-8") == sample_settings()
    assert load_settings({}, CONFIGS / "nkat.example.toml") == Settings()


def test_the_document_has_every_setting_and_every_reason() -> None:
    document = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in document.splitlines()]
    for name, field in Settings.model_fields.items():
        assert [row for row in rows if row[:1] == [f"`{flag(name)}`"] and row[-1] == field.description], name
    for key, reason in IGNORED_KEYS.items():
        assert [row for row in rows if row and f"`{key}`" in row[0] and row[-1] == reason], key
