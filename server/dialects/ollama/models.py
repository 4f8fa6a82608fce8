"""What Ollama clients are told of the loaded model. Pure, but for a look at the model's file."""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from engine.types import ModelInfo
from server.chat.reasoning import family_of

VERSION = "0.13.4"
"""The first version of Ollama's API with `/v1/responses`, below which Codex refuses to work."""

NEVER = "9999-12-31T23:59:59Z"
"""When the model is unloaded."""

EPOCH = datetime.fromtimestamp(0, UTC)

UNITS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K"))


@dataclass(frozen=True, slots=True)
class ModelFile:
    """The model's file; for a split model its first part. `size`: bytes; `modified`: when, in UTC."""

    size: int = 0
    modified: datetime = EPOCH

    @classmethod
    def look(cls, path: Path | None) -> "ModelFile":
        """The facts of the file at `path`; of no size where there is none to see."""
        try:
            found = None if path is None else path.expanduser().stat()
        except OSError:
            found = None
        return cls() if found is None else cls(found.st_size, datetime.fromtimestamp(found.st_mtime, UTC))


def version_reply() -> dict[str, Any]:
    """The answer of `/api/version`: that of the API, and this server's own."""
    return {"version": VERSION, "nkat": version("nkat")}


def tags_reply(info: ModelInfo, file: ModelFile) -> dict[str, Any]:
    """The answer of `/api/tags`: the models that there are."""
    return {"models": [_entry(info, file) | {"modified_at": _time(file.modified)}]}


def running_reply(info: ModelInfo, file: ModelFile) -> dict[str, Any]:
    """The answer of `/api/ps`: the models that are loaded."""
    running = {"expires_at": NEVER, "context_length": info.context_length}
    return {"models": [_entry(info, file) | running]}


def show_reply(info: ModelInfo, file: ModelFile) -> dict[str, Any]:
    """The answer of `/api/show`: all about the model. `template` is in Jinja, as in the model's file."""
    return {
        "modelfile": f"FROM {info.name}\n",
        "parameters": f"num_ctx {info.context_length}",
        "template": info.chat_template or "",
        "details": _details(info),
        "model_info": {
            "general.architecture": info.architecture,
            "general.basename": info.name,
            "general.parameter_count": info.parameters,
            f"{info.architecture}.context_length": info.trained_context_length,
            f"{info.architecture}.vocab_size": info.vocab_size,
        },
        "capabilities": _capabilities(info),
        "modified_at": _time(file.modified),
    }


def _entry(info: ModelInfo, file: ModelFile) -> dict[str, Any]:
    # The digest tells files apart without reading gigabytes: it is of the file's name, size and date.
    identity = f"{info.name}\n{file.size}\n{file.modified.timestamp()}"
    return {
        "name": info.name,
        "model": info.name,
        "size": file.size,
        "digest": hashlib.sha256(identity.encode()).hexdigest(),
        "details": _details(info),
    }


def _details(info: ModelInfo) -> dict[str, Any]:
    return {
        "parent_model": "",
        "format": "gguf",
        "family": info.architecture,
        "families": [info.architecture],
        "parameter_size": _short(info.parameters),
        "quantization_level": info.quantization,
    }


def _capabilities(info: ModelInfo) -> list[str]:
    """What the model can do here: any is told of tools, its template says whether it thinks, none sees."""
    template = info.chat_template or ""
    thinks = family_of(template).marked_in(template) or "enable_thinking" in template
    return ["completion", "tools", *(["thinking"] if thinks else [])]


def _short(count: int) -> str:
    """A count as people write it: three digits at most, then a unit."""
    for unit, letter in UNITS:
        if count >= unit:
            value = count / unit
            return f"{value:.0f}{letter}" if value >= 100 else f"{value:.3g}{letter}"
    return str(count)


def _time(moment: datetime) -> str:
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
