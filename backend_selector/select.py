"""From facts and wishes to a choice with reasons. Pure: the same facts give the same choice."""

from collections.abc import Iterator

from backend_selector.cache import CachePlan, plan_cache
from backend_selector.choice import Choice, Decision, DeviceShare, EngineName
from backend_selector.facts import CACHE_BITS, FileFacts, MachineFacts, Wishes
from backend_selector.koboldcpp import koboldcpp_command, koboldcpp_needs
from backend_selector.placement import Placement, place
from backend_selector.sizes import gib
from backend_selector.stage import TRITON
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
    _check_quantkv(file, wishes)
    placement = place(file, machine, wishes)
    cache = plan_cache(file, machine, placement, wishes)
    shares = tuple(_shares(placement, cache))
    star = engine.value == "nkat"
    return Choice(
        engine=engine,
        gamma=_gamma(file, wishes) if star else None,
        device=Decision(placement.device, placement.reason),
        kernels=Decision(placement.kernels, placement.kernels_reason),
        dtype=_dtype(wishes, placement),
        context=cache.context,
        kv_tokens=cache.tokens,
        threads=threads,
        layers=Decision(
            tuple((stage.device, stage.blocks) for stage in placement.stages), placement.layers_reason
        ),
        shares=shares,
        memory=sum(share.used for share in shares),
        koboldcpp=koboldcpp_command(
            file, placement, star=star, context=cache.context.value, threads=threads.value, wishes=wishes
        ),
        koboldcpp_needs=tuple(koboldcpp_needs(file, star=star)),
        warnings=tuple(_warnings(file, machine, wishes, placement, cache.context.value, star=star)),
    )


def _check_quantkv(file: FileFacts, wishes: Wishes) -> None:
    """Raise `ConfigError` for a cache of nibbles with heads that are not pairs of them."""
    odd = [dim for dim in (file.cache_shape.key_dim, file.cache_shape.value_dim) if dim % 2]
    if odd and CACHE_BITS[wishes.quantkv] == 4:
        raise ConfigError(
            f"--quantkv 2 stores pairs of elements, but the model has heads of {odd[0]}: take 1"
        )


def _shares(placement: Placement, cache: CachePlan) -> Iterator[DeviceShare]:
    for stage in placement.stages:
        size = cache.slots * stage.kv_bytes_per_token
        yield DeviceShare(
            stage.device, stage.kernels, stage.blocks, stage.weights, size, stage.workspace, stage.free
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


def _dtype(wishes: Wishes, placement: Placement) -> Decision[str]:
    if wishes.dtype not in ("auto", _DTYPE):
        raise ConfigError(f"the kernels cannot compute in {wishes.dtype!r:.40}; use auto or {_DTYPE}")
    used = {stage.kernels for stage in placement.stages}
    if TRITON in used:
        return Decision(_DTYPE, "activations; rounded to 8 bits or bfloat16 in front of packed matrices")
    if used & set(NATIVE_KERNELS):
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
    for stage in placement.stages:
        if not stage.dense:
            yield (
                f"not all of the float32 weights fit half of the {gib(stage.free)} that are free on "
                f"{stage.device}: the rest is dequantised at each use, which is slow"
            )
    if not machine.cuda and wishes.device == "auto":
        for flag in wishes.wants_gpu:
            yield f"{flag} has no effect: there is no CUDA device, the model runs on the CPU"
    if wishes.quantkv and any(stage.kernels != TRITON and stage.blocks for stage in placement.stages):
        yield "--quantkv counts on CUDA devices alone: keys and values of other layers stay as they are"
    if context > file.trained_context:
        yield f"the model was trained on {file.trained_context} tokens; it may lose the thread beyond them"
    if wishes.threads is not None and wishes.threads > machine.cpu.physical_cores:
        cores = machine.cpu.physical_cores
        yield f"{wishes.threads} threads for {cores} physical cores are slower, not faster"
    if wishes.gamma is not None and not star:
        yield "gamma has no effect without theta"
