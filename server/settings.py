"""The server's settings: defaults < TOML file < environment < flags.

Names are KoboldCpp's flags where the meaning is the same; an underscore is a dash in a flag. The file is
TOML because settings want comments, which JSON has not, and because Python reads it without a further
dependency.
"""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from engine.config import EngineConfig
from engine.errors import ConfigError

PREFIX = "NKAT_"
CONFIG_VARIABLE = f"{PREFIX}CONFIG"

Positive = Annotated[int, Field(ge=1)]


class Settings(BaseSettings):
    """Everything a user may set. Frozen; `load_settings` is the way to get one."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", validate_default=True)

    model: Path | None = Field(
        default=None, description="GGUF file to serve; the first part of a split model"
    )
    host: str = Field(default="127.0.0.1", min_length=1, description="address to listen on; 0.0.0.0 for all")
    port: int = Field(default=5001, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    contextsize: Positive | None = Field(
        default=None, description="tokens a request may span; unset: the model's own, at most 4096"
    )
    threads: Positive | None = Field(default=None, description="CPU threads; unset: the physical cores")
    device: str = Field(
        default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto, cpu, cuda or cuda:N"
    )
    kernels: str = Field(
        default="auto",
        pattern=r"^[a-z0-9]+$",
        description="auto for the fastest, or avx2, portable or reference",
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
    maxrequestsize: int = Field(default=32, ge=1, le=1024, description="largest request body in MB")
    password: SecretStr | None = Field(
        default=None, min_length=1, description="key that clients must send as `Authorization: Bearer KEY`"
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

    def engine_config(self) -> EngineConfig:
        """What the engine is told. Raises `ConfigError`."""
        if self.model is None:
            raise ConfigError("no model given; say --model FILE, or try: nkat demo")
        return EngineConfig(
            model=self.model.expanduser(),
            context_length=self.contextsize,
            threads=self.threads,
            device=self.device,
            kernels=self.kernels,
            max_sequences=self.parallelrequests,
            token_budget=self.blasbatchsize,
            kv_tokens=self.kvtokens,
            theta=self.theta,
            theta_path=None if self.theta_path is None else self.theta_path.expanduser(),
            gamma=self.theta_gamma,
        )

    @property
    def capacity(self) -> int:
        """Generations that may be open at a time, running or waiting."""
        waiting = 10 if self.multiuser == 1 else max(0, self.multiuser - 1)
        return self.parallelrequests + waiting


def flag(name: str) -> str:
    """The command-line flag of a setting: `theta_path` is `--theta-path`."""
    return "--" + name.replace("_", "-")


def load_settings(flags: Mapping[str, Any], config: Path | None = None) -> Settings:
    """The settings of this run. Raises `ConfigError` in one line that says what is allowed.

    `flags` are those the user gave; `config` is the settings file, else `NKAT_CONFIG` names one.
    """
    _check_environment()
    if config is None and CONFIG_VARIABLE in os.environ:
        config = Path(os.environ[CONFIG_VARIABLE])
    in_file = read_settings_file(config) if config is not None else {}
    below = {name: value for name, value in in_file.items() if PREFIX + name.upper() not in os.environ}
    try:
        return Settings(**{**below, **flags})
    except ValidationError as error:
        raise ConfigError(_explain(error, flags, below, config)) from None


def read_settings_file(path: Path) -> dict[str, Any]:
    """The values in a settings file; only their names are checked. Raises `ConfigError`."""
    try:
        values = tomllib.loads(path.expanduser().read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the settings file {path}: {error.strerror}") from None
    except ValueError as error:  # tomllib's own error and bad UTF-8
        raise ConfigError(f"{path} is not TOML, as settings files are: {error}") from None
    for name in values:
        _check_name(name, str(path))
    return values


def sample_settings() -> str:
    """A settings file that says what the defaults say, generated from the typed defaults."""
    lines = [
        "# Settings of the NKAT server: nkat serve --config THIS_FILE",
        "# Environment variables (NKAT_PORT, ...) and flags (--port, ...) go before this file.",
    ]
    for name, field in Settings.model_fields.items():
        lines += ["", f"# {field.description}"]
        match field.default:
            case None:
                lines.append(f"# {name} =")
            case bool() as value:
                lines.append(f"{name} = {str(value).lower()}")
            case str() as value:
                lines.append(f'{name} = "{value}"')
            case value:
                lines.append(f"{name} = {value}")
    return "\n".join(lines) + "\n"


def _check_environment() -> None:
    for variable in os.environ:
        if variable.startswith(PREFIX) and variable != CONFIG_VARIABLE:
            _check_name(variable.removeprefix(PREFIX).lower(), f"the environment ({variable})")


def _check_name(name: str, where: str) -> None:
    if name not in Settings.model_fields:
        allowed = ", ".join(sorted(Settings.model_fields))
        raise ConfigError(f"unknown setting {name!r} in {where}; known are: {allowed}")


def _explain(
    error: ValidationError, flags: Mapping[str, Any], in_file: Mapping[str, Any], config: Path | None
) -> str:
    first = error.errors(include_url=False, include_context=False)[0]
    name = str(first["loc"][0])
    if name in flags:
        where = flag(name)
    elif name in in_file:
        where = f"{name} in {config}"
    else:
        where = PREFIX + name.upper()
    value = "" if name == "password" else f", not {first['input']!r}"
    meaning = Settings.model_fields[name].description
    return f"bad value for {where}: {first['msg'].lower()}{value} ({meaning})"
