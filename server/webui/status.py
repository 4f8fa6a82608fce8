"""What the pages ask about the engine, and what they may change. Pure but for its protocols."""

from dataclasses import asdict, dataclass
from typing import Annotated, Any, Protocol

from pydantic import ConfigDict, Field, StrictBool

from engine.errors import RequestError
from engine.types import Backend, ModelInfo, ThetaStatus
from server.service import Status
from server.wire.lenient import WireModel
from server.wire.sampler_fields import SamplerFields

SAMPLERS = {"temperature", "top_p", "top_k", "min_p", "rep_pen"}
"""Of the sampler fields, those that the page shows."""


class EngineControl(Protocol):
    """What the pages need of the engine beyond the service's `info` and `status()`."""

    @property
    def backend(self) -> Backend:
        """What the model computes with."""

    @property
    def theta(self) -> ThetaStatus | None:
        """Theta as asked for last; None for a model without."""

    def set_theta(self, *, enabled: bool | None = None, gamma: float | None = None) -> None:
        """Switch theta or change gamma for all that is submitted later; None leaves that as it is.

        Does not block. Raises `ConfigError` for what the model cannot have, `EngineDeadError`.
        """


class ThetaBody(WireModel):
    """Body of `POST /api/nkat/theta`."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"enabled": True, "gamma": 0.97}]})

    enabled: StrictBool | None = Field(default=None, description="whether theta counts; absent: as it is")
    gamma: Annotated[float, Field(ge=0, le=1, strict=True, allow_inf_nan=False)] | None = Field(
        default=None, description="strength of theta; absent: as it is"
    )


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What does not change while the server runs."""

    version: str
    """Of NKAT."""
    protected: bool
    """Whether there is a key."""
    lite: bool
    """Whether KoboldAI Lite is served at `/`."""


def status_reply(
    info: ModelInfo, status: Status, engine: EngineControl, around: Surroundings
) -> dict[str, Any]:
    """The answer of `GET /api/nkat/status`. `info`: as the client may see the model.

    `uptime` and `idle_time` are seconds, `context_length` tokens; `open` counts generations that run or
    wait, `waiting` those that wait.
    """
    return {
        "model": info.name,
        "architecture": info.architecture,
        "quantization": info.quantization,
        "parameters": info.parameters,
        "context_length": info.context_length,
        "trained_context_length": info.trained_context_length,
        "vocab_size": info.vocab_size,
        "backend": asdict(engine.backend),
        "theta": None if engine.theta is None else asdict(engine.theta),
        "sampling_defaults": SamplerFields().model_dump(include=SAMPLERS),
        "version": around.version,
        "protected": around.protected,
        "lite": around.lite,
        "open": status.open,
        "waiting": status.waiting,
        "finished": status.finished,
        "uptime": status.uptime,
        "idle_time": status.idle_time,
    }


def change_theta(engine: EngineControl, body: ThetaBody) -> dict[str, Any]:
    """Do what `body` asks and say what holds now. Raises `RequestError` for what cannot be had."""
    if engine.theta is None:
        raise RequestError("the model has no theta: convert it first, or serve it with --theta-path")
    if body.enabled is None and body.gamma is None:
        raise RequestError("nothing to change: give `enabled` (true or false), `gamma` (0 to 1) or both")
    engine.set_theta(enabled=body.enabled, gamma=body.gamma)
    return asdict(engine.theta)
