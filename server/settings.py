"""The server's settings: defaults < file < environment < flags.

Names are KoboldCpp's flags where the meaning is the same; an underscore is a dash in a flag. The file is
TOML, because settings want comments, which JSON has not, and because Python reads it without a further
dependency; or it is one of KoboldCpp's own, which `server.kcpps` reads.
"""

import os
import re
import reprlib
import shlex
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, PrivateAttr, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from backend_selector.shares import checked_shares, read_shares
from engine.config import MOST_DRAFT_TOKENS, EngineConfig
from engine.errors import ConfigError
from engine.native import NATIVE_KERNELS
from server.kcpps import parse_kcpps
from server.kobold_flags import IGNORED_FLAGS
from server.networks import Networks, parse_address

PREFIX = "NKAT_"
CONFIG_VARIABLE = f"{PREFIX}CONFIG"
BUILD_VARIABLES = (f"{PREFIX}NATIVE", f"{PREFIX}REQUIRE_NATIVE")
"""What the installation reads; without effect on a run."""
KOBOLD_PASSWORD_VARIABLE = "KCPP_PASSWORD"
FILE_LIMIT = 1 << 20
"""Bytes of the largest settings file."""
KOBOLD_SUFFIXES = (".kcpps", ".kcppt", ".json")
AUTO_GUESS = "AutoGuess"
"""The adapter that is guessed from the model's template, by KoboldCpp's name."""


def _expanded(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise ValueError(str(error)) from None


Positive = Annotated[int, Field(ge=1)]
UserPath = Annotated[Path, AfterValidator(_expanded)]


class Settings(BaseSettings):
    """Everything a user may set. Frozen; `load_settings` is the way to get one."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", validate_default=True)

    # Not a setting, but bound to these ones: see `ignored`.
    _ignored: dict[str, str] = PrivateAttr(default_factory=dict)

    model: Path | None = Field(
        default=None, description="GGUF file to serve; the first part of a split model"
    )
    host: str = Field(default="127.0.0.1", min_length=1, description="address to listen on; 0.0.0.0 for all")
    port: int = Field(default=5001, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    contextsize: Positive | None = Field(
        default=None, description="tokens a request may span; unset: the model's own, at most 16384"
    )
    threads: Positive | None = Field(default=None, description="CPU threads; unset: the physical cores")
    device: str = Field(
        default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto, cpu, cuda or cuda:N"
    )
    kernels: str = Field(
        default="auto",
        pattern=r"^[a-z0-9]+$",
        description=f"auto for the fastest, or triton, {', '.join(NATIVE_KERNELS)} or reference",
    )
    gpulayers: int | None = Field(
        default=None,
        ge=-1,
        le=9999,
        description="layers on GPUs, the output counted as one more; unset or -1: as many as fit, 0: none",
    )
    tensor_split: tuple[float, ...] | None = Field(
        default=None, description="shares of these layers by GPU, as in 7,3; unset: by free memory"
    )
    maingpu: int | None = Field(
        default=None, ge=-1, le=9999, description="the one GPU to use; unset or -1: whichever are best"
    )
    quantkv: int = Field(
        default=0, ge=0, le=2, description="keys and values on GPUs: 0 in 16 bits, 1 in 8, 2 in 4"
    )
    parallelrequests: int = Field(default=16, ge=1, le=256, description="generations computed together")
    multiuser: int = Field(
        default=1,
        ge=0,
        le=1024,
        description="generations that may wait for their turn: 0 none, 1 ten, N otherwise N - 1",
    )
    blasbatchsize: int = Field(default=512, ge=16, le=65536, description="tokens computed in one step")
    kvtokens: Positive | None = Field(
        default=None, description="tokens the KV cache holds over all generations; unset: four contexts"
    )
    defaultgenamt: Positive | None = Field(
        default=None, description="tokens made when a request does not say; unset: 180, and 400 for chat"
    )
    genlimit: Positive | None = Field(
        default=None, description="most tokens that a request may make; unset: as many as the context holds"
    )
    noshift: bool = Field(
        default=False,
        description="when a chat loses its oldest part, compute the rest anew rather than shift it",
    )
    draftmodel: UserPath | None = Field(
        default=None, description="GGUF file of a smaller model of the same vocabulary, to guess ahead with"
    )
    draftamount: int | None = Field(
        default=None,
        ge=0,
        le=MOST_DRAFT_TOKENS,
        description="tokens guessed ahead, without --draftmodel from the text so far; "
        "unset: 8 with --draftmodel, else none",
    )
    maxrequestsize: int = Field(default=32, ge=1, le=1024, description="largest request body in MB")
    password: SecretStr | None = Field(
        default=None, min_length=1, description="key that clients must send as `Authorization: Bearer KEY`"
    )
    password_file: UserPath | None = Field(
        default=None,
        description="file with the password in one line; unlike --password it is not seen in `ps`",
    )
    trusted_proxies: tuple[str, ...] | None = Field(
        default=None,
        description="reverse proxies whose X-Forwarded-For and X-Forwarded-Proto count: "
        "addresses and networks, as in 10.0.0.2,172.16.0.0/12",
    )
    allowed_hosts: tuple[str, ...] | None = Field(
        default=None,
        description="names that clients may reach the server by, * for any; "
        "unset: any with a password or beyond this machine, else private ones",
    )
    ssl: tuple[UserPath, UserPath] | None = Field(
        default=None, description="certificate and unencrypted key, two PEM files: serve https"
    )
    jinja: bool = Field(
        default=True, description="chats use the model's own template; off: tags guessed from it (AutoGuess)"
    )
    chatcompletionsadapter: str = Field(
        default="",
        description="tags for chats: a JSON file, a known adapter's name or AutoGuess; "
        "empty: the model's own template",
    )
    special_in_messages: bool = Field(
        default=False,
        description="control tokens that a chat's messages spell end turns and begin others, "
        "as in KoboldCpp; off: they are plain text",
    )
    lite: UserPath | None = Field(default=None, description="KoboldAI Lite's HTML file, to be shown at /")
    preloadstory: UserPath | None = Field(
        default=None, description="JSON file with the story that KoboldAI Lite begins with"
    )
    savedatafile: UserPath | None = Field(
        default=None,
        description="file with the saves of clients, made if there is none; unset: no saves here",
    )
    theta: bool = Field(default=True, description="let theta count, where the model has it")
    theta_path: Path | None = Field(
        default=None, description="file with theta for the model; unset: the model file's own, if it has any"
    )
    theta_gamma: float | None = Field(
        default=None, ge=0, le=1, description="strength of theta, 0 to 1; unset: as theta's file says"
    )
    quiet: bool = Field(default=False, description="print warnings and errors only")
    debugmode: bool = Field(default=False, description="log what clients send, prompts included")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Values given in code, then the environment; `load_settings` adds the file below both."""
        return init_settings, env_settings

    @field_validator("model", "draftmodel", mode="before")
    @classmethod
    def _is_local(cls, value: Any) -> Any:
        if isinstance(value, str | Path) and str(value).startswith(("http:/", "https:/")):
            raise ValueError("a file of this machine is wanted: nothing is downloaded")
        return value

    @field_validator("password")
    @classmethod
    def _is_sendable(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            key = value.get_secret_value()
            # Spaces round a key do not count: one of spaces alone would let everybody in.
            if not key.strip():
                raise ValueError("a key of spaces protects nothing")
            if any("\ud800" <= character <= "\udfff" for character in key):
                raise ValueError("a key must be UTF-8")
        return value

    @field_validator("ssl", mode="before")
    @classmethod
    def _two_files(cls, value: Any) -> Any:
        """The environment has one text for both."""
        return shlex.split(value) if isinstance(value, str) else value

    @field_validator("tensor_split", mode="before")
    @classmethod
    def _several_shares(cls, value: Any) -> Any:
        """A text holds all of them; in the environment a single one is a number."""
        if isinstance(value, str):
            return read_shares(value)
        return (value,) if isinstance(value, int | float) else value

    @field_validator("tensor_split")
    @classmethod
    def _make_sense(cls, value: tuple[float, ...] | None) -> tuple[float, ...] | None:
        return None if value is None else checked_shares(value)

    @field_validator("trusted_proxies", "allowed_hosts", mode="before")
    @classmethod
    def _several_names(cls, value: Any) -> Any:
        """A text holds all of them."""
        return tuple(re.split(r"[\s,]+", value.strip())) if isinstance(value, str) else value

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        Networks(value or ())
        return value

    @field_validator("allowed_hosts")
    @classmethod
    def _are_names(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for name in value or ():
            if name != "*" and not re.fullmatch(r"[\w.-]+|\[[\da-fA-F:.]+\]", name):
                raise ValueError("names stand without a scheme, a port and wildcards")
        return value

    @property
    def protected(self) -> bool:
        """Whether clients must send a key."""
        return self.password is not None or self.password_file is not None

    @property
    def is_local(self) -> bool:
        """Whether the server listens for clients of this machine alone."""
        address = parse_address(self.host)
        return self.host.lower() == "localhost" if address is None else address.is_loopback

    @property
    def ignored(self) -> Mapping[str, str]:
        """What the user asked for in vain, as it was said, and why it has no effect."""
        return self._ignored

    @property
    def adapter(self) -> str:
        """The adapter that chats use: a name or a file, empty for the model's own template."""
        if self.chatcompletionsadapter == "" and not self.jinja:
            return AUTO_GUESS
        return self.chatcompletionsadapter

    def engine_config(self) -> EngineConfig:
        """What the engine is told. Raises `ConfigError`."""
        if self.model is None:
            raise ConfigError("no model given; say --model FILE, or try: nkat demo")
        return EngineConfig(
            model=self.model.expanduser(),
            context_length=self.contextsize,
            threads=self.threads,
            device=self.device,
            gpu_layers=self.gpulayers,
            tensor_split=self.tensor_split,
            main_gpu=self.maingpu,
            kernels=self.kernels,
            max_sequences=self.parallelrequests,
            token_budget=self.blasbatchsize,
            kv_tokens=self.kvtokens,
            quantkv=self.quantkv,
            context_shift=not self.noshift,
            draft_model=self.draftmodel,
            draft_tokens=self.draftamount,
            theta=self.theta,
            theta_path=None if self.theta_path is None else self.theta_path.expanduser(),
            gamma=self.theta_gamma,
        )

    @property
    def largest_body(self) -> int:
        """Bytes that a request's body may have, where its endpoint needs no fewer."""
        return self.maxrequestsize << 20

    @property
    def capacity(self) -> int:
        """Generations that may be open at a time, running or waiting."""
        waiting = 10 if self.multiuser == 1 else max(0, self.multiuser - 1)
        return self.parallelrequests + waiting


def flag(name: str) -> str:
    """The command-line flag of a setting: `theta_path` is `--theta-path`."""
    return "--" + name.replace("_", "-")


def load_settings(
    flags: Mapping[str, Any], config: Path | None = None, ignored_flags: Iterable[str] = ()
) -> Settings:
    """The settings of this run. Raises `ConfigError` in one line that says what is allowed.

    `flags` are those the user gave; `config` is the settings file, else `NKAT_CONFIG` names one.
    `ignored_flags` are flags of KoboldCpp's without effect, which `Settings.ignored` then names beside the
    keys of its files. KoboldCpp's own variable for the password counts where nothing else says one.
    """
    _check_environment()
    if config is None and CONFIG_VARIABLE in os.environ:
        config = Path(os.environ[CONFIG_VARIABLE])
    in_file, ignored = read_settings_file(config) if config is not None else ({}, {})
    below = {name: value for name, value in in_file.items() if PREFIX + name.upper() not in os.environ}
    said = {**below, **flags}.keys() | {name.lower() for name in _variables()}
    if os.environ.get(KOBOLD_PASSWORD_VARIABLE) and not said & {"password", "password_file"}:
        below["password"] = os.environ[KOBOLD_PASSWORD_VARIABLE]
    try:
        settings = Settings(**{**below, **flags})
    except ValidationError as error:
        raise ConfigError(_explain(error, flags, in_file, config)) from None
    if settings.password is not None and settings.password_file is not None:
        one, other = (_place(name, flags, in_file, config) for name in ("password", "password_file"))
        raise ConfigError(f"{one} and {other} both say the password; say it once")
    settings._ignored = {f"--{name}": IGNORED_FLAGS[name] for name in ignored_flags} | {
        f"{name} in {config}": reason for name, reason in ignored.items()
    }
    return settings


def read_settings_file(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """The settings in a file, of which only the names are checked, and its ignored keys with the reasons.

    JSON, by the name's ending or the first character, is taken for one of KoboldCpp's files, all else for
    TOML. Raises `ConfigError`.
    """
    try:
        # Not read_text: a device or a pipe has no end.
        with path.expanduser().open("rb") as file:
            raw = file.read(FILE_LIMIT + 1)
    except OSError as error:
        raise ConfigError(f"cannot read the settings file {path}: {error.strerror}") from None
    except RuntimeError as error:  # no home to expand ~ to
        raise ConfigError(f"cannot read the settings file {path}: {error}") from None
    if len(raw) > FILE_LIMIT:
        raise ConfigError(f"the settings file {path} is larger than {FILE_LIMIT >> 20} MB")
    values: dict[str, Any]
    ignored: dict[str, str] = {}
    try:
        text = raw.decode("utf-8-sig")
        if path.suffix.lower() in KOBOLD_SUFFIXES or text.lstrip().startswith("{"):
            values, ignored = parse_kcpps(text, str(path))
        else:
            values = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # tomllib's own error and bad UTF-8
        raise ConfigError(f"{path} is not TOML, as settings files are: {error}") from None
    for name in values:
        _check_name(name, str(path))
    return values, ignored


def _check_environment() -> None:
    for name in _variables():
        _check_name(name.lower(), f"the environment ({PREFIX}{name})")


def _variables() -> list[str]:
    """The settings in the environment, without the prefix."""
    own = (name for name in os.environ if name.startswith(PREFIX))
    return [name.removeprefix(PREFIX) for name in own if name not in (CONFIG_VARIABLE, *BUILD_VARIABLES)]


def _check_name(name: str, where: str) -> None:
    if name not in Settings.model_fields:
        allowed = ", ".join(sorted(Settings.model_fields))
        raise ConfigError(f"unknown setting {name!r} in {where}; known are: {allowed}")


def _explain(
    error: ValidationError, flags: Mapping[str, Any], in_file: Mapping[str, Any], config: Path | None
) -> str:
    first = error.errors(include_url=False, include_context=False)[0]
    name = str(first["loc"][0])
    where = _place(name, flags, in_file, config)
    value = "" if name == "password" else f", not {reprlib.repr(first['input'])}"
    meaning = Settings.model_fields[name].description
    return f"bad value for {where}: {_reason(first['msg'])}{value} ({meaning})"


def _place(name: str, flags: Mapping[str, Any], in_file: Mapping[str, Any], config: Path | None) -> str:
    """Where a setting was said, as the user knows it."""
    if name in flags:
        return flag(name)
    if PREFIX + name.upper() in os.environ:
        return PREFIX + name.upper()
    return f"{name} in {config}" if name in in_file else KOBOLD_PASSWORD_VARIABLE


def _reason(message: str) -> str:
    return message.removeprefix("Value error, ").lower()
