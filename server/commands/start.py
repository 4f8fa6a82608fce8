"""How a model is to run here, found out before anything heavy is imported."""

from dataclasses import dataclass, replace

from backend_selector.choice import Choice
from backend_selector.facts import FileFacts, Wishes
from backend_selector.probe import probe_file, probe_machine
from backend_selector.select import select_backend
from engine.config import EngineConfig
from engine.preparation import set_up_process


@dataclass(frozen=True, slots=True)
class Start:
    """What the engine is told, and why: nothing is left to it to decide."""

    config: EngineConfig
    file: FileFacts
    choice: Choice


def choose_start(asked: EngineConfig) -> Start:
    """Judge the model and its theta, look at the machine, and fill in what the user left open.

    Call before torch is imported. Raises `ModelFileError` for files that cannot be used, `ConfigError` for
    what cannot be met here.
    """
    set_up_process()
    wishes = Wishes(
        device=asked.device,
        gpulayers=asked.gpu_layers,
        tensor_split=asked.tensor_split,
        maingpu=asked.main_gpu,
        kernels=asked.kernels,
        contextsize=asked.context_length,
        kvtokens=asked.kv_tokens,
        quantkv=asked.quantkv,
        step_tokens=asked.token_budget,
        sequences=asked.max_sequences,
        threads=asked.threads,
        theta=asked.theta,
        theta_path=asked.theta_path,
        gamma=asked.gamma,
    )
    file = probe_file(asked.model, asked.theta_path if asked.theta else None)
    choice = select_backend(file, probe_machine(), wishes)
    config = replace(
        asked,
        device=choice.device.value,
        kernels=choice.kernels.value,
        context_length=choice.context.value,
        kv_tokens=choice.kv_tokens.value,
        threads=choice.threads.value,
        theta=choice.engine.value == "nkat",
        gamma=None if choice.gamma is None else choice.gamma.value,
    )
    return Start(config, file, choice)
