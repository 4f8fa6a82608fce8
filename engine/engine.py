"""One engine: the only place that sees scheduler, runner, sampler and output together."""

import logging
import os
import time
from collections import Counter
from collections.abc import Mapping
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F

from engine.architectures import CacheShape, ModelFile, open_model
from engine.batch_builder import BatchBuilder
from engine.block_manager import BlockManager
from engine.collector import without_collector
from engine.config import DEFAULT_CONTEXT_LENGTH, EngineConfig
from engine.context_shift import ContextShift
from engine.device import torch_device
from engine.embedding import Embedding, EmbeddingRequest, Pooling
from engine.embedding_queue import EmbeddingQueue, fit_embedding
from engine.errors import ConfigError
from engine.grammar import GrammarCompiler, GrammarState
from engine.kernels import Kernels, select_kernels
from engine.kernels.reference import ReferenceKernels
from engine.kv_cache import KVCache
from engine.layers import Star
from engine.memory import available_bytes
from engine.metrics import Counters, Snapshot
from engine.model_runner import ModelRunner
from engine.models import Loader, Model, load_model
from engine.output import Output, Verdict
from engine.prompt import PromptEncoder
from engine.sampling import Draw, Row, Sampler
from engine.scheduler import Chunk, Plan, Scheduler
from engine.sequence import Sequence
from engine.theta import ThetaFactors, open_theta
from engine.theta.names import corrected_tensor
from engine.thinking import ThinkingLimit
from engine.tokenizer import Tokenizer
from engine.tokenizer.piece_index import PieceIndex
from engine.types import ChatPrompt, Event, FinishReason, GenerationRequest, ModelInfo, TokenPrompt, Usage

_logger = logging.getLogger(__name__)


class Engine:
    """Generates text for many requests at once. For one thread; `engine.worker` gives it one.

    `prepare`, `render_chat` and the tokenizer alone may be used from other threads.
    """

    def __init__(self, config: EngineConfig, model: Model, tokenizer: Tokenizer, info: ModelInfo) -> None:
        """Takes loaded parts together; `load` is the usual way in. Raises `ConfigError`."""
        self.info = info
        self.tokenizer = tokenizer
        self.counters = Counters()
        self._model = model
        self._prompts = PromptEncoder(tokenizer, info.context_length)
        device = torch_device(config.device)
        slots = _cache_slots(config, info.context_length)
        cache = _allocate_cache(model.cache_shape, slots, model.kernels)
        self._blocks = BlockManager(slots // config.block_size, config.block_size)
        self._scheduler = Scheduler(
            self._blocks,
            max_sequences=config.max_sequences,
            token_budget=config.token_budget,
            counters=self.counters,
            shift=ContextShift(self._blocks) if config.context_shift else None,
        )
        self._batches = BatchBuilder(config.block_size, device)
        self._runner = ModelRunner(model, cache)
        self._pieces = PieceIndex(tokenizer)
        self._sampler = Sampler(tokenizer, self._pieces)
        self._compiler = GrammarCompiler(tokenizer)
        self._sequences: dict[str, Sequence] = {}
        self._outputs: dict[str, Output] = {}
        self._grammars: dict[str, GrammarState] = {}
        self._thinking: dict[str, ThinkingLimit] = {}
        self._decided: list[Event] = []
        """Events of requests that ended without a step."""
        self._embeddings = EmbeddingQueue()

    @classmethod
    def load(cls, config: EngineConfig) -> Self:
        """An engine for the model file of the settings.

        Raises `ModelFileError` for a file that cannot be used, `ConfigError` for settings that the
        machine or the model cannot meet.
        """
        # Loading makes hundreds of thousands of objects that all stay.
        with without_collector():
            return cls(config, *_load_parts(config))

    @property
    def has_work(self) -> bool:
        """Whether `step` would do or report anything, or `take_embeddings` would."""
        return bool(self._decided) or self._scheduler.has_work or self._embeddings.has_work

    def prepare(self, request: GenerationRequest) -> GenerationRequest:
        """Tokenise the prompt, fit it to the context, and compile what needs it.

        Safe in any thread; raises `RequestError`, also for a grammar that does not compile.
        """
        if request.grammar is not None:
            self._compiler.check(request.grammar)
        self._sampler.prepare(request)
        return self._prompts.prepare(request)

    def prepare_embedding(self, request: EmbeddingRequest) -> EmbeddingRequest:
        """Check an input and fit it to the context. Safe in any thread; raises `RequestError`."""
        return fit_embedding(
            request, context_length=self.info.context_length, vocab_size=self.tokenizer.vocab_size
        )

    def render_chat(self, chat: ChatPrompt) -> str:
        """The text of a chat prompt. Safe in any thread; raises `RequestError`."""
        return self._prompts.render(chat)

    @property
    def model(self) -> Model:
        """The loaded model, for those who measure it themselves. For the engine's own thread."""
        return self._model

    @property
    def kernels(self) -> Kernels:
        """What the model computes with, and where."""
        return self._model.kernels

    @property
    def star(self) -> Star | None:
        """Theta as it counts now; None for a model without theta. `set_theta` changes it."""
        return self._model.star

    def check_theta(self, gamma: float | None = None) -> Star:
        """What `set_theta` would change. Safe in any thread; raises `ConfigError`."""
        if self.star is None:
            raise ConfigError(f"{self.info.name} has no theta: convert it first, or give a --theta-path")
        if gamma is not None and not 0 <= gamma <= 1:
            raise ConfigError(f"gamma must lie between 0 and 1, not {gamma:g}")
        return self.star

    def set_theta(self, *, enabled: bool | None = None, gamma: float | None = None) -> None:
        """Switch theta, or change its strength, between two steps. None leaves that as it is.

        Keys and values that were computed with the old theta are forgotten: cached prefixes are lost, and
        requests under way compute their tokens again and go on with the new one. Raises `ConfigError` for
        a model without theta and for a gamma outside [0, 1].
        """
        star = self.check_theta(gamma)
        if enabled is not None:
            star.enable(enabled)
        if gamma is not None:
            star.set_gamma(gamma)
        self._scheduler.restart()

    def replace_theta(self, factors: Mapping[str, ThetaFactors], gamma: float) -> None:
        """Go on with other factors for the tensors that have theta, of any rank, without loading anew.

        Tensors that get none go on without. Forgets what `set_theta` forgets, and raises what it raises.
        """
        self.check_theta(gamma).load(factors)
        self.set_theta(gamma=gamma)

    def add(self, request: GenerationRequest) -> None:
        """Take in a prepared request. Its events come out of `step`."""
        self._check_new(request.request_id)
        sequence = Sequence.from_request(request)
        self.counters.requests_added += 1
        self._sampler.add(request)
        self._sequences[sequence.id] = sequence
        self._outputs[sequence.id] = Output(request, self.tokenizer)
        if request.grammar is not None:
            self._grammars[sequence.id] = self._compiler.start(request.grammar)
        if request.thinking is not None:
            self._thinking[sequence.id] = ThinkingLimit(request.thinking, self.tokenizer, sequence.tokens)
        self._scheduler.add(sequence)
        if request.max_tokens <= 0:
            self._decided.append(self._end(sequence, FinishReason.LENGTH))

    def abort(self, request_id: str) -> None:
        """End a request, if it is still under way; its blocks are free when this returns."""
        sequence = self._sequences.get(request_id)
        if sequence is not None:
            self._decided.append(self._end(sequence, FinishReason.ABORT))
        embedded = self._embeddings.abort(request_id)
        if embedded is not None:
            self._scheduler.finish(embedded)

    def add_embedding(self, request: EmbeddingRequest) -> None:
        """Take in a prepared input. One chunk of one input advances in each `step`, beside the generations.

        Its answer comes out of `take_embeddings`.
        """
        self._check_new(request.request_id)
        self._embeddings.add(request)

    def take_embeddings(self) -> list[Embedding]:
        """The answers of inputs that have ended since the last call, in that order."""
        return self._embeddings.take_ended()

    def embed(self, ids: list[int], pooling: Pooling = "mean") -> Embedding:
        """The vector of one input. Runs at once and alone: no request may be under way.

        Raises `RequestError` for what the model cannot take.
        """
        assert not self._sequences, "events of other requests would be lost"
        self.add_embedding(self.prepare_embedding(EmbeddingRequest("", tuple(ids), pooling)))
        while not (ended := self.take_embeddings()):
            self.step()
        return ended[0]

    def step(self) -> list[Event]:
        """Let every sequence that fits advance; news of those that have any."""
        following = self._embeddings.start()
        if following is not None:
            self._scheduler.add(following)
        plan = self._scheduler.plan()
        moves = self._scheduler.take_moves()
        if moves:
            self._runner.move(moves)
        for chunk in [chunk for chunk in plan if chunk.sequence is self._embeddings.sequence]:
            plan.remove(chunk)
            self._embed(chunk)
        events = self._advance(plan) if plan else []
        decided, self._decided = self._decided, []
        return decided + events

    def log_likelihoods(self, ids: list[int], first: int) -> torch.Tensor:
        """How likely the model finds ids[first:], each after all in front: float32 [len(ids) - first].

        Natural logarithms. Runs at once and alone: no request may be under way. `ids` must fit the
        context; 1 <= first < len(ids).
        """
        assert not self._scheduler.has_work, "scoring borrows the cache"
        request = GenerationRequest("", TokenPrompt(tuple(ids)), max_tokens=0)
        sequence = Sequence.from_request(request)
        assert self._blocks.grow(sequence, len(ids)), "the context fits the cache"
        plan = [Chunk(sequence, 0, len(ids))]
        logits = self._runner.run(self._batches.build(plan, logit_rows=range(first - 1, len(ids) - 1)))
        self._blocks.free(sequence)
        targets = torch.tensor(ids[first:], device=logits.device)
        return -F.cross_entropy(logits, targets, reduction="none")

    def snapshot(self) -> Snapshot:
        """The counters now."""
        counters = self.counters
        return Snapshot(
            steps=counters.steps,
            prompt_tokens_computed=counters.prompt_tokens_computed,
            prompt_tokens_cached=counters.prompt_tokens_cached,
            prompt_tokens_shifted=counters.prompt_tokens_shifted,
            embedding_tokens_computed=counters.embedding_tokens_computed,
            generated_tokens=counters.generated_tokens,
            requests_added=counters.requests_added,
            requests_finished=counters.requests_finished,
            requests_aborted=counters.requests_aborted,
            preemptions=counters.preemptions,
            running=len(self._scheduler.running),
            waiting=len(self._scheduler.waiting),
            blocks_total=self._blocks.num_blocks,
            blocks_free=self._blocks.num_free,
            last_usage=counters.last_usage,
            last_finish=counters.last_finish,
        )

    def check_integrity(self) -> None:
        """Raise `AssertionError` if queues, blocks and requests disagree."""
        self._scheduler.check_integrity()
        queued = {sequence.id for sequence in (*self._scheduler.running, *self._scheduler.waiting)}
        if self._embeddings.sequence is not None:
            queued.remove(self._embeddings.sequence.id)
        assert queued == set(self._sequences) == set(self._outputs), "a request is lost or left behind"

    def _check_new(self, request_id: str) -> None:
        known = request_id in self._sequences or self._embeddings.holds(request_id)
        assert not known, "request ids are unique"

    def _embed(self, chunk: Chunk) -> None:
        """Compute a part of the input under way."""
        rows = self._embeddings.rows(chunk.start, chunk.count)
        states = self._runner.states(self._batches.build([chunk], logit_rows=rows))
        self._embeddings.pool(chunk.start, states)
        self._scheduler.advance([chunk])
        self.counters.embedding_tokens_computed += chunk.count
        if chunk.completes:
            self._scheduler.finish(chunk.sequence)
            self._embeddings.finish()

    def _advance(self, plan: Plan) -> list[Event]:
        now = time.monotonic()
        for chunk in plan:
            sequence = chunk.sequence
            if sequence.started_at is None:
                sequence.started_at = now
            self.counters.prompt_tokens_computed += max(
                0, min(chunk.count, sequence.prompt_length - chunk.start)
            )
        batch = self._batches.build(plan)
        logits = self._runner.run(batch)
        self._scheduler.advance(plan)
        self.counters.steps += 1
        ready = [chunk.sequence for chunk in plan if chunk.completes]
        draws = self._sampler.sample(logits, [self._row(sequence) for sequence in ready])
        return [self._accept(sequence, draw) for sequence, draw in zip(ready, draws, strict=True)]

    def _row(self, sequence: Sequence) -> Row:
        """What binds the next token of a sequence, beside the model's logits."""
        grammar, thinking = self._grammars.get(sequence.id), self._thinking.get(sequence.id)
        allowed = None if grammar is None else grammar.mask()
        banned = frozenset(sequence.banned_at.get(len(sequence.tokens), ()))
        forced = None if thinking is None else thinking.forced
        if forced is not None and (forced in banned or not _allows(allowed, forced)):
            forced = None
        return Row(sequence.id, sequence.tokens, banned, allowed, forced)

    def _accept(self, sequence: Sequence, draw: Draw) -> Event:
        """Append a token to its sequence, and do what its text asks for: go on, go back, or end."""
        if sequence.first_token_at is None:
            sequence.first_token_at = time.monotonic()
        sequence.tokens.append(draw.token)
        sequence.drawn += 1
        self.counters.generated_tokens += 1
        grammar, thinking = self._grammars.get(sequence.id), self._thinking.get(sequence.id)
        if grammar is not None:
            grammar.accept(draw.token)
        if thinking is not None:
            thinking.push(draw.token)
        verdict = self._outputs[sequence.id].push(draw.token, draw.logprobs)
        if verdict.rewind:
            self._rewind(sequence, verdict.rewind)
        elif verdict.finish is not None:
            return self._end(sequence, verdict.finish, verdict)
        elif grammar is not None and grammar.finished:
            return self._end(sequence, FinishReason.EOS, verdict)
        if sequence.drawn >= sequence.request.max_tokens:
            return self._end(sequence, FinishReason.LENGTH, verdict)
        return Event(sequence.id, verdict.text, verdict.tokens, verdict.logprobs)

    def _rewind(self, sequence: Sequence, count: int) -> None:
        """Take the last tokens back. They stay counted, so that a sequence cannot go back for ever."""
        sequence.take_back(count)
        # The last token that stays is computed again: its logits say what else may come.
        self._blocks.truncate(sequence, len(sequence.tokens) - 1)
        if sequence.id in self._grammars:
            self._grammars[sequence.id].rollback(count)
        if sequence.id in self._thinking:
            self._thinking[sequence.id].take_back(count)

    def _end(self, sequence: Sequence, reason: FinishReason, last: Verdict | None = None) -> Event:
        """Forget a sequence and give its blocks back; its last event, with what is decided by `last`."""
        if last is None or last.finish is None:
            rest = self._outputs[sequence.id].flush(reason)
            last = rest if last is None else last + rest
        seed = self._sampler.seed(sequence.id)
        self._scheduler.finish(sequence)
        self._sampler.remove(sequence.id)
        del self._sequences[sequence.id], self._outputs[sequence.id]
        self._grammars.pop(sequence.id, None)
        self._thinking.pop(sequence.id, None)
        now = time.monotonic()
        started = now if sequence.started_at is None else sequence.started_at
        first = now if sequence.first_token_at is None else sequence.first_token_at
        usage = Usage(
            prompt_tokens=sequence.prompt_length,
            completion_tokens=sequence.generated,
            cached_tokens=sequence.cached_tokens,
            prompt_seconds=first - started,
            decode_seconds=now - first,
            seed=seed,
        )
        self.counters.last_usage, self.counters.last_finish = usage, reason
        if reason is FinishReason.ABORT:
            self.counters.requests_aborted += 1
        else:
            self.counters.requests_finished += 1
        return Event(sequence.id, last.text, last.tokens, last.logprobs, finish=reason, usage=usage)


def _allows(mask: np.ndarray | None, token: int) -> bool:
    """Whether a grammar's mask, uint32 [vocab / 32], lets a token come."""
    return mask is None or bool(int(mask[token // 32]) >> token % 32 & 1)


def _load_parts(config: EngineConfig) -> tuple[Model, Tokenizer, ModelInfo]:
    file = open_model(config.model)
    device = torch_device(config.device)
    context_length = _context_length(file, config)
    threads = config.threads or len(os.sched_getaffinity(0))
    # Half of what is free: the cache, the activations and other programs need the rest.
    dense_bytes = available_bytes(device) // 2
    kernels = select_kernels(device, dense_bytes=dense_bytes, threads=threads, name=config.kernels)
    # Kernels with threads of their own leave torch no core to compute on beside them.
    torch.set_num_threads(threads if isinstance(kernels, ReferenceKernels) else 1)
    # Before anything grows with the context: an absurd one is the settings' fault.
    _check_room(file.config.cache_shape, _cache_slots(config, context_length), kernels)
    theta = open_theta(file.file, config.theta_path) if config.theta else None
    model = load_model(file, Loader(file.file, kernels, theta), context_length)
    if model.star is not None and config.gamma is not None:
        model.star.set_gamma(config.gamma)
    # Built while the kernels may still be packing.
    tokenizer = Tokenizer.from_metadata(file.file.metadata)
    kernels.settle()
    file.file.release()
    return model, tokenizer, _describe(file, config, tokenizer, context_length)


def _cache_slots(config: EngineConfig, context_length: int) -> int:
    """Slots of the KV cache, in whole blocks: at least one context, for a request may need it."""
    tokens = 4 * context_length if config.kv_tokens is None else config.kv_tokens
    if tokens < context_length:
        raise ConfigError(
            f"a KV cache of {tokens} tokens cannot hold a context of {context_length}: raise the one "
            "or lower the other"
        )
    return -(-tokens // config.block_size) * config.block_size


def _check_room(shape: CacheShape, slots: int, kernels: Kernels) -> None:
    """Raise `ConfigError` for a cache that the device's free memory cannot hold."""
    needed = slots * shape.bytes_per_token(kernels.cache_dtype.itemsize)
    free = available_bytes(kernels.device)
    if needed > free:
        raise ConfigError(
            f"the KV cache for {slots} tokens needs {needed / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are "
            "free: choose a smaller context"
        )


def _allocate_cache(shape: CacheShape, slots: int, kernels: Kernels) -> KVCache:
    _check_room(shape, slots, kernels)
    return KVCache.allocate(
        layers=shape.layers,
        slots=slots,
        kv_heads=shape.kv_heads,
        key_dim=shape.key_dim,
        value_dim=shape.value_dim,
        dtype=kernels.cache_dtype,
        device=kernels.device,
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
    )
