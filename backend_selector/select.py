"""From facts and wishes to a choice with reasons. Pure: the same facts give the same choice."""

from collections.abc import Iterator

from backend_selector.cache import plan_cache
from backend_selector.choice import Choice, Decision, EngineName
from backend_selector.facts import FileFacts, MachineFacts, Wishes
from backend_selector.koboldcpp import koboldcpp_command, koboldcpp_needs
from backend_selector.placement import Placement, place
from backend_selector.sizes import gib
from engine.errors import ConfigError, ModelFileError
from engine.native import NATIVE_KERNELS

_DTYPE = "float32"


def select_backend(file: FileFacts, machine: MachineFacts, wishes: Wishes) -> Choice:
    """How to run the model here.

    Never promises more memory than is free. Raises `ConfigError` for wishes that cannot be met and for a
    model that does not fit, `ModelFileError` for theta that was made for another model file; both say in one
    line what to do.
    """
    engine = _engine(file, wishes)
    threads = _threads(machine, wishes)
    placement = place(file, machine, wishes)
    cache = plan_cache(file, placement, wishes)
    device = placement.device.value
    star = engine.value == "nkat"
    return Choice(
        engine=engine,
        gamma=_gamma(file, wishes) if star else None,
        device=placement.device,
        kernels=placement.kernels,
        dtype=_dtype(wishes, placement.kernels.value),
        context=cache.context,
        kv_tokens=cache.tokens,
        threads=threads,
        layers=Decision(((device, file.layers),), "the engine keeps a model on one device"),
        memory=placement.weights + cache.slots * placement.kv_bytes_per_token,
        koboldcpp=koboldcpp_command(
            file, star=star, device=device, context=cache.context.value, threads=threads.value
        ),
        koboldcpp_needs=tuple(koboldcpp_needs(file, star=star)),
        warnings=tuple(_warnings(file, machine, wishes, placement, cache.context.value, star=star)),
    )


def _engine(file: FileFacts, wishes: Wishes) -> Decision[EngineName]:
    if not wishes.theta:
        return Decision("baseline", "theta is switched off")
    theta = file.theta
    if theta is None:
        return Decision("baseline", "the file holds no theta")
    if file.sha256 is not None and theta.base_sha256 != file.sha256:
        raise ModelFileError(
            f"{wishes.theta_path or file.path}: theta was made for another model file "
            f"(sha256 {theta.base_sha256[:12]}..., but {file.path.name} has {file.sha256[:12]}...): "
            "take the model that it was made for, or say --no-theta"
        )
    where = "the file" if wishes.theta_path is None else wishes.theta_path.name
    return Decision("nkat", f"{where} holds theta of rank {theta.rank} for {theta.tensors} tensors")


def _gamma(file: FileFacts, wishes: Wishes) -> Decision[float]:
    if wishes.gamma is None:
        assert file.theta is not None, "nkat is chosen for files with theta only"
        return Decision(file.theta.gamma, "as theta's file says")
    return Decision(wishes.gamma, "as asked for")


def _dtype(wishes: Wishes, kernels: str) -> Decision[str]:
    if wishes.dtype not in ("auto", _DTYPE):
        raise ConfigError(f"the kernels cannot compute in {wishes.dtype!r:.40}; use auto or {_DTYPE}")
    if kernels in NATIVE_KERNELS:
        return Decision(_DTYPE, "activations; rounded to 8 bits in front of packed matrices")
    return Decision(_DTYPE, "what the reference kernels compute in")


def _threads(machine: MachineFacts, wishes: Wishes) -> Decision[int]:
    if wishes.threads is None:
        return Decision(machine.cpu.physical_cores, "the physical cores")
    return Decision(wishes.threads, "as asked for")


def _warnings(
    file: FileFacts, machine: MachineFacts, wishes: Wishes, placement: Placement, context: int, *, star: bool
) -> Iterator[str]:
    if machine.torch is None:
        yield "PyTorch is not installed, so that the engine cannot run: ask nkat doctor"
    if not placement.dense:
        yield (
            f"{gib(file.matrix_bytes)} of float32 weights do not fit half of the {gib(placement.free)} that "
            f"are free on {placement.device.value}: the rest is dequantised at each use, which is slow"
        )
    if context > file.trained_context:
        yield f"the model was trained on {file.trained_context} tokens; it may lose the thread beyond them"
    if wishes.threads is not None and wishes.threads > machine.cpu.physical_cores:
        cores = machine.cpu.physical_cores
        yield f"{wishes.threads} threads for {cores} physical cores are slower, not faster"
    if wishes.gamma is not None and not star:
        yield "gamma has no effect without theta"
