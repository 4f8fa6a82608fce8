"""From the settings of an engine to its parts."""

import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from weakref import ref

import torch

from engine.architectures import CacheShape, LlamaConfig, ModelFile, open_model
from engine.config import DEFAULT_CONTEXT_LENGTH, EngineConfig, usual_contexts
from engine.device import Places, make_current, model_places
from engine.errors import NO_MEMORY, ConfigError
from engine.kernels import Kernels, select_kernels
from engine.kernels.reference import ReferenceKernels
from engine.kernels.split import SplitKernels, Stage
from engine.kernels.split_cache import SplitCache
from engine.kv_cache import CacheFormat, KVCache
from engine.memory import available_bytes
from engine.models import Loader, Model, load_model
from engine.theta import open_theta
from engine.theta.names import corrected_tensor
from engine.tokenizer import Tokenizer
from engine.tokenizer.vocabulary import Vocabulary
from engine.types import ModelInfo

_logger = logging.getLogger(__name__)

_TABLE_BYTES = 32
"""For one angle of the rotation while its table is made, in double precision."""


def load_parts(config: EngineConfig) -> tuple[Model, Tokenizer, ModelInfo]:
    """The model, its tokenizer and what clients may know. Raises `ModelFileError`, `ConfigError`."""
    file = open_model(config.model)
    context_length = _context_length(file, config)
    kernels = _kernels(config, model_places(config.device, file.config.layers))
    # Before anything grows with the context: an absurd one is the settings' fault.
    _check_room(file.config.cache_shape, cache_slots(config, context_length), kernels)
    _check_work(file.config, config, context_length, kernels)
    theta = open_theta(file.file, config.theta_path) if config.theta else None
    with memory_in_one_line("the model", config):
        model = load_model(file, Loader(file, kernels, theta), context_length)
    if model.star is not None and config.gamma is not None:
        model.star.set_gamma(config.gamma)
    tokenizer = Tokenizer.from_metadata(file.file.metadata)
    file.file.check_whole()
    kernels.when_settled(partial(_settled, file, ref(model)), file.file.check_whole)
    # Matrices that were repacked have left gaps, which the cache may need as one piece.
    torch.cuda.empty_cache()
    return model, tokenizer, _describe(file, config, tokenizer, context_length)


def load_draft_model(config: EngineConfig, tokenizer: Tokenizer, context_length: int) -> Model | None:
    """The model that guesses tokens, if the settings want one. Theta in its file does not count.

    It is on one device: that of the main model, of a split one the last, where the logits are.

    `tokenizer`, `context_length`: the main model's. Raises `ModelFileError` for a file that cannot be used,
    `ConfigError` for one with another vocabulary, and where the memory is short.
    """
    if config.draft_model is None or config.drafted_tokens == 0:
        return None
    file = open_model(config.draft_model)
    _check_vocabulary(config.draft_model, Vocabulary.from_metadata(file.file.metadata), tokenizer)
    # Kernels of its own: they keep what belongs to one model at hand.
    *_, last = config.device.split(",")
    kernels = _kernels(config, model_places(last.partition("=")[0], file.config.layers))
    slots = cache_slots(config, context_length)
    _check_room(file.config.cache_shape, slots, kernels, name="the draft model's KV cache")
    _check_work(file.config, config, context_length, kernels, name="the draft model's steps")
    with memory_in_one_line("the draft model", config):
        model = load_model(file, Loader(file, kernels), context_length)
    file.file.check_whole()
    kernels.when_settled(partial(_settled, file, ref(model)), file.file.check_whole)
    torch.cuda.empty_cache()
    return model


def _settled(file: ModelFile, model: "ref[Model]") -> None:
    """All of the file has been read: let go of it, and tell what is wrong with it.

    Raises `ModelFileError` if something else was read than the file held. `model`: the kernels wait for this
    call, and the model has them; a circle of the two would never be collected.
    """
    file.file.check_reads()
    file.file.release()
    file.file.close()
    loaded = model()
    damage = None if loaded is None else loaded.damage()
    if damage is not None:
        _logger.error("%s: %s", file.file.path, damage)


@contextmanager
def memory_in_one_line(name: str, config: EngineConfig) -> Iterator[None]:
    """Raise `ConfigError` where a device's memory ends while something is loaded."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise ConfigError(
            f"{name} does not fit the memory of {config.device}: put fewer layers there, or take another"
        ) from None
    except MemoryError:
        raise ConfigError(f"{name} does not fit: {NO_MEMORY}") from None
    except RuntimeError as error:
        # What torch raises for the processor's memory has no class of its own.
        if "allocate memory" not in str(error):
            raise
        raise ConfigError(f"{name} does not fit: {NO_MEMORY}") from None


def _kernels(config: EngineConfig, places: Places) -> Kernels:
    """Kernels for a model's layers at these places, with threads and memory as the machine has them."""
    threads = config.threads or len(os.sched_getaffinity(0))
    stages = [Stage(_kernels_of(config, device, threads), layers) for device, layers in places]
    # Kernels with threads of their own leave torch no core to compute on beside them.
    plain = any(isinstance(stage.kernels, ReferenceKernels) for stage in stages)
    torch.set_num_threads(threads if plain else 1)
    make_current(places[-1][0])
    return stages[0].kernels if len(stages) == 1 else SplitKernels(stages, config.block_size)


def _kernels_of(config: EngineConfig, device: torch.device, threads: int) -> Kernels:
    # Half of what is free: the cache, the activations and other programs need the rest.
    dense_bytes = available_bytes(device) // 2
    kernels = select_kernels(
        device,
        dense_bytes=dense_bytes,
        threads=threads,
        name=config.kernels,
        cache_format=CacheFormat(config.quantkv),
    )
    if kernels.cache_format.value != config.quantkv:
        _logger.warning("the %s kernels do not quantise the KV cache: quantkv is ignored", kernels.name)
    return kernels


def _check_vocabulary(path: Path, drafts: Vocabulary, tokenizer: Tokenizer) -> None:
    """Raise `ConfigError` unless every token id means the same to both models."""
    size = len(drafts.tokens)
    if size != tokenizer.vocab_size:
        raise ConfigError(
            f"the draft model {path} has a vocabulary of {size} tokens, the model one of "
            f"{tokenizer.vocab_size}: a draft model needs the same vocabulary"
        )
    for token_id, token in enumerate(drafts.tokens):
        if token != tokenizer.text(token_id):
            raise ConfigError(
                f"the draft model {path} calls token {token_id} {token!r:.60}, the model calls it "
                f"{tokenizer.text(token_id)!r:.60}: a draft model needs the same vocabulary"
            )


def cache_slots(config: EngineConfig, context_length: int) -> int:
    """Slots of the KV cache, in whole blocks: at least one context, for a request may need it."""
    tokens = config.kv_tokens
    if tokens is None:
        tokens = usual_contexts(context_length) * context_length
    if tokens < context_length:
        raise ConfigError(
            f"a KV cache of {tokens} tokens cannot hold a context of {context_length}: raise the one "
            "or lower the other"
        )
    return -(-tokens // config.block_size) * config.block_size


def _stages(shape: CacheShape, kernels: Kernels) -> Sequence[tuple[CacheShape, Kernels]]:
    """What each kernel set keeps of the context: all of them, or the part of its stage."""
    if isinstance(kernels, SplitKernels):
        return [(replace(shape, layers=stage.blocks), stage.kernels) for stage in kernels.stages]
    return [(shape, kernels)]


def _check_room(shape: CacheShape, slots: int, kernels: Kernels, name: str = "the KV cache") -> None:
    """Raise `ConfigError` for a cache that the free memory of its devices cannot hold."""
    for part, own in _stages(shape, kernels):
        needed = slots * cache_bytes_per_token(part, own)
        free = available_bytes(own.device)
        if needed > free:
            raise ConfigError(
                f"{name} for {slots} tokens needs {needed / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are "
                "free: choose a smaller context"
            )


def _check_work(
    shape: LlamaConfig, config: EngineConfig, context: int, kernels: Kernels, name: str = "the model's steps"
) -> None:
    """Raise `ConfigError` where there is no memory for a step's activations and the table of positions."""
    heads = shape.heads * (2 * shape.key_dim + 2 * shape.value_dim)
    activations = 4 * (4 * shape.width + 2 * heads + 3 * shape.feed_forward)
    needed = min(config.token_budget, context) * activations
    needed += config.max_sequences * (1 + config.drafted_tokens) * 4 * shape.vocab_size
    needed += context * (shape.rope.dimensions // 2) * _TABLE_BYTES
    free = available_bytes(kernels.device)
    if needed > free:
        raise ConfigError(
            f"{name} need {needed / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free: "
            "choose a smaller context, or a smaller model"
        )


def cache_bytes_per_token(shape: CacheShape, kernels: Kernels) -> int:
    """Bytes of the cache that one token takes, in all layers of one kernel set."""
    format, dtype = kernels.cache_format, kernels.cache_dtype
    head = format.row_bytes(shape.key_dim, dtype) + format.row_bytes(shape.value_dim, dtype)
    return shape.layers * shape.kv_heads * head


def allocate_cache(shape: CacheShape, slots: int, kernels: Kernels) -> KVCache:
    """An empty cache of `slots` tokens, on each device for its layers.

    Raises `ConfigError` where the memory is short, or for heads that the cache's format cannot store.
    """
    _check_room(shape, slots, kernels)
    try:
        parts = [_allocate(part, slots, own) for part, own in _stages(shape, kernels)]
    except ValueError as error:
        raise ConfigError(f"{error}: choose another quantkv") from None
    return SplitCache.of(parts) if isinstance(kernels, SplitKernels) else parts[0]


def _allocate(shape: CacheShape, slots: int, kernels: Kernels) -> KVCache:
    return KVCache.allocate(
        layers=shape.layers,
        slots=slots,
        kv_heads=shape.kv_heads,
        key_dim=shape.key_dim,
        value_dim=shape.value_dim,
        dtype=kernels.cache_dtype,
        device=kernels.device,
        format=kernels.cache_format,
    )


def _context_length(model: ModelFile, config: EngineConfig) -> int:
    trained = model.config.trained_context
    context = config.context_length or min(trained, DEFAULT_CONTEXT_LENGTH)
    if context > trained:
        _logger.warning("the context of %d is longer than the %d the model was trained on", context, trained)
    return context


def _describe(model: ModelFile, config: EngineConfig, tokenizer: Tokenizer, context_length: int) -> ModelInfo:
    tensors = [info for info in model.file.tensors.values() if corrected_tensor(info.name) is None]
    types = Counter(info.type.name for info in tensors if len(info.shape) > 1)
    template = tokenizer.chat_template
    return ModelInfo(
        name=config.model.stem,
        architecture=model.architecture,
        quantization=types.most_common(1)[0][0],
        parameters=sum(info.n_elements for info in tensors),
        context_length=context_length,
        trained_context_length=model.config.trained_context,
        vocab_size=tokenizer.vocab_size,
        chat_template=None if template is None else template.source,
        bos_token="" if tokenizer.bos_id is None else tokenizer.text(tokenizer.bos_id),
        eos_token="" if tokenizer.eos_id is None else tokenizer.text(tokenizer.eos_id),
        control_tokens=tokenizer.control_names,
    )
