"""One engine: the only place that sees scheduler, runner, sampler and output together."""

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Self

import torch
import torch.nn.functional as F

from engine.batch_builder import batch_builder
from engine.block_manager import BlockManager
from engine.collector import without_collector
from engine.config import EngineConfig
from engine.context_shift import ContextShift
from engine.embedding import Embedding, EmbeddingRequest, Pooling
from engine.embedding_queue import EmbeddingQueue, fit_embedding
from engine.errors import ModelFileError
from engine.generation import Generation
from engine.grammar import GrammarCompiler
from engine.kernels import Kernels
from engine.layers import Star
from engine.loading import cache_slots, load_draft_model, load_parts, memory_in_one_line
from engine.lookahead import Flight, Lookahead
from engine.metrics import Counters, Snapshot
from engine.model_runner import ModelRunner
from engine.models import Model
from engine.output import Verdict
from engine.pace import Load, Pace
from engine.plan import Chunk, Plan
from engine.prompt import PromptEncoder
from engine.prompt_scores import PromptScores, Scores
from engine.sampling import NO_DRAW, Draw, Sampler
from engine.scheduler import Scheduler
from engine.sequence import Sequence
from engine.speculation import Trial, start_speculation
from engine.templates.pool import TemplatePool
from engine.theta import ThetaFactors
from engine.theta_switch import ThetaSwitch
from engine.tokenizer import Tokenizer
from engine.types import (
    ChatPrompt,
    Event,
    FinishReason,
    GenerationRequest,
    ModelInfo,
    Progress,
    TokenPrompt,
)


class Engine:
    """Generates text for many requests at once. For one thread; `engine.worker` gives it one.

    `prepare`, `render_chat` and the tokenizer alone may be used from other threads.
    """

    def __init__(
        self,
        config: EngineConfig,
        model: Model,
        tokenizer: Tokenizer,
        info: ModelInfo,
        draft_model: Model | None = None,
        templates: TemplatePool | None = None,
    ) -> None:
        """Takes loaded parts together; `load` is the usual way in. Raises `ConfigError`."""
        self.info = info
        self.tokenizer = tokenizer
        self.counters = Counters()
        self._model = model
        self._prompts = PromptEncoder(tokenizer, info.context_length, templates)
        slots = cache_slots(config, info.context_length)
        self._blocks = BlockManager(slots // config.block_size, config.block_size)
        self._pace = Pace()
        self._scheduler = Scheduler(
            self._blocks,
            max_sequences=config.max_sequences,
            token_budget=config.token_budget,
            counters=self.counters,
            shift=ContextShift(self._blocks) if config.context_shift else None,
            pace=self._pace,
        )
        self._batches = batch_builder(model.kernels, config.block_size)
        self._runner = ModelRunner.of(config, model, info.context_length)
        self._sampler = Sampler(tokenizer, draw=model.kernels.draw if model.kernels.draws else None)
        self._compiler = GrammarCompiler(tokenizer)
        self._generations: dict[str, Generation] = {}
        self._decided: list[Event] = []
        """Events of requests that ended without a step."""
        self._embeddings = EmbeddingQueue()
        self._lookahead = Lookahead(self._batches, self._runner, self._sampler)
        self._flight: Flight | None = None
        """The step whose tokens are on their way."""
        self._theta = ThetaSwitch(model.star, self._runner, info.name)
        self._speculator = start_speculation(config, info.context_length, draft_model, self.counters)

    @classmethod
    def load(cls, config: EngineConfig, templates: TemplatePool | None = None) -> Self:
        """An engine for the model file of the settings. `templates` renders chats, as in `PromptEncoder`.

        Raises `ModelFileError` for a file that cannot be used, `ConfigError` for settings that the
        machine or the model cannot meet.
        """
        # Loading makes hundreds of thousands of objects that all stay.
        with without_collector(), memory_in_one_line("the model", config):
            model, tokenizer, info = load_parts(config)
            draft_model = load_draft_model(config, tokenizer, info.context_length)
            return cls(config, model, tokenizer, info, draft_model, templates)

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
        """Theta as it counts for requests that do not say; None for a model without. See `set_theta`."""
        return self._theta.star

    def check_theta(self, gamma: float | None = None) -> Star:
        """What `set_theta` would change. Safe in any thread; raises `ConfigError`."""
        return self._theta.check(gamma)

    def set_theta(self, *, enabled: bool | None = None, gamma: float | None = None) -> None:
        """Switch theta, or change its strength, for requests that are added later. None leaves that as it is.

        Requests in flight go on as they began, and prefixes cached with either setting stay. Raises
        `ConfigError` for a model without theta and for a gamma outside [0, 1].
        """
        self._theta.check(gamma)
        self._recall()
        self._theta.change(enabled=enabled, gamma=gamma)

    def replace_theta(self, factors: Mapping[str, ThetaFactors], gamma: float) -> None:
        """Go on with other factors for the tensors that have theta, of any rank, without loading anew.

        Tensors that get none go on without. All keys and values are forgotten: cached prefixes are lost, and
        requests in flight compute their tokens again. Raises what `set_theta` raises.
        """
        self._theta.check(gamma)
        self._recall()
        self._theta.replace(factors)
        self._theta.change(gamma=gamma)
        self._scheduler.restart()

    def add(self, request: GenerationRequest) -> None:
        """Take in a prepared request. Its events come out of `step`."""
        self._check_new(request.request_id)
        grammar = None if request.grammar is None else self._compiler.start(request.grammar)
        generation = Generation(request, self.tokenizer, grammar)
        self.counters.requests_added += 1
        self._sampler.add(request)
        generation.sequence.theta = self._theta.wanted(request.theta)
        self._generations[request.request_id] = generation
        self._scheduler.add(generation.sequence)
        if generation.scores is not None:
            if not generation.scores.missing:
                self._decided.append(self._scored(generation))
        elif request.max_tokens <= 0:
            self._decided.append(self._end(generation, generation.flush(FinishReason.LENGTH)))

    def abort(self, request_id: str) -> None:
        """End a request, if it is still under way; its blocks are free when this returns."""
        generation = self._generations.get(request_id)
        if generation is not None:
            self._decided.append(self._end(generation, generation.flush(FinishReason.ABORT)))
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
        assert not self._generations, "events of other requests would be lost"
        self.add_embedding(self.prepare_embedding(EmbeddingRequest("", tuple(ids), pooling)))
        while not (ended := self.take_embeddings()):
            self.step()
        return ended[0]

    def step(self) -> list[Event]:
        """Let every sequence that fits advance; news of those that have any."""
        started, flight = time.perf_counter(), self._flight
        events = self._plan_step() if flight is None else self._land(flight)
        load = self._scheduler.load if flight is None else Load(len(flight.plan))
        self._pace.learn(load, time.perf_counter() - started)
        decided, self._decided = self._decided, []
        return decided + events

    def _plan_step(self) -> list[Event]:
        following = self._embeddings.start()
        if following is not None:
            following.theta = self._theta.default
            self._scheduler.add(following)
        plan = self._scheduler.plan()
        if self._speculator is not None:
            self._scheduler.extend(plan, self._speculator.draft(plan))
        moves = self._scheduler.take_moves()
        if moves:
            self._runner.move(moves)
        for chunk in [chunk for chunk in plan if chunk.sequence is self._embeddings.sequence]:
            plan.remove(chunk)
            self._embed(chunk)
        events = self._score(plan)
        return events + self._advance(plan) if plan else events

    def log_likelihoods(self, ids: list[int], first: int) -> torch.Tensor:
        """How likely the model finds ids[first:], each after all in front: float32 [len(ids) - first].

        Natural logarithms. Runs at once and alone: no request may be under way. `ids` must fit the
        context; 1 <= first < len(ids). Raises `ModelFileError` where they are no numbers.
        """
        assert not self._scheduler.has_work, "scoring borrows the cache"
        request = GenerationRequest("", TokenPrompt(tuple(ids)), max_tokens=0)
        sequence = Sequence.from_request(request)
        assert self._blocks.grow(sequence, len(ids)), "the context fits the cache"
        plan = [Chunk(sequence, 0, len(ids))]
        logits = self._runner.run(self._batches.build(plan, logit_rows=range(first - 1, len(ids) - 1)))
        self._blocks.free(sequence)
        targets = torch.tensor(ids[first:], device=logits.device)
        likely = -F.cross_entropy(logits, targets, reduction="none")
        if not likely.isfinite().all():
            raise ModelFileError(self._damage())
        return likely

    def snapshot(self) -> Snapshot:
        """The counters now."""
        return self.counters.snapshot(
            running=len(self._scheduler.running),
            waiting=len(self._scheduler.waiting),
            blocks_total=self._blocks.num_blocks,
            blocks_free=self._blocks.num_free,
        )

    def check_integrity(self) -> None:
        """Raise `AssertionError` if queues, blocks and requests disagree."""
        self._scheduler.check_integrity()
        queued = {sequence.id for sequence in (*self._scheduler.running, *self._scheduler.waiting)}
        if self._embeddings.sequence is not None:
            queued.remove(self._embeddings.sequence.id)
        assert queued == set(self._generations), "a request is lost or left behind"
        if self._speculator is not None:
            alive = {name: generation.sequence for name, generation in self._generations.items()}
            self._speculator.check_integrity(alive)

    def _check_new(self, request_id: str) -> None:
        known = request_id in self._generations or self._embeddings.holds(request_id)
        assert not known, "request ids are unique"

    def _embed(self, chunk: Chunk) -> None:
        """Compute a part of the input under way."""
        rows = self._embeddings.rows(chunk.start, chunk.count)
        with self._theta.applied(chunk.sequence.theta):
            states = self._runner.states(self._batches.build([chunk], logit_rows=rows))
        self._embeddings.pool(chunk.start, states)
        self._scheduler.advance([chunk])
        self.counters.embedding_tokens_computed += chunk.count
        if chunk.completes:
            self._scheduler.finish(chunk.sequence)
            self._embeddings.finish()

    def _score(self, plan: Plan) -> list[Event]:
        """Compute what of a plan belongs to prompts that are scored, and take it out; news of those."""
        parts: Plan = []
        scores: dict[Sequence, PromptScores] = {}
        for chunk in list(plan):
            own = self._generations[chunk.sequence.id].scores
            part = None if own is None else own.part(chunk)
            if own is not None and part is not None:
                plan.remove(chunk)
                parts.append(part)
                scores[part.sequence] = own
        self._begin(parts)
        events = []
        for setting, group in self._theta.groups(parts):
            targets = [token for part in group for token in scores[part.sequence].targets(part)]
            most = max(scores[part.sequence].alternatives for part in group)
            with self._theta.applied(setting):
                batch = self._batches.build(group, logit_rows=range(len(targets)))
                found = self._runner.scores(batch, targets, most)
            self._scheduler.advance(group)
            for part in group:
                rows, found = found.split(part.count)
                events += self._take_scores(part, scores[part.sequence], rows)
        return events

    def _take_scores(self, part: Chunk, scores: PromptScores, found: Scores) -> list[Event]:
        """Give scores to their prompt; news of it, if there are any."""
        generation = self._generations[part.sequence.id]
        if not found.sound:
            return [self._end(generation, generation.flush(FinishReason.ERROR), self._damage())]
        scores.add(part, found)
        return [] if scores.missing else [self._scored(generation)]

    def _scored(self, generation: Generation) -> Event:
        """News of a prompt that is scored; the last one where nothing else is asked for."""
        assert generation.scores is not None
        event = Event(generation.sequence.id)
        if generation.sequence.request.max_tokens <= 0:
            event = self._end(generation, generation.flush(FinishReason.LENGTH))
        return replace(event, prompt_logprobs=tuple(generation.scores.told))

    def _begin(self, plan: Plan) -> None:
        """Note that a step works on a plan."""
        now = time.monotonic()
        for chunk in plan:
            sequence = chunk.sequence
            if sequence.started_at is None:
                sequence.started_at = now
            self.counters.prompt_tokens_computed += max(
                0, min(chunk.count, sequence.prompt_length - chunk.start)
            )

    def _advance(self, plan: Plan) -> list[Event]:
        self._begin(plan)
        self.counters.steps += 1
        flight = self._launch(plan)
        if flight is not None:
            return self._land(flight)
        logits = self._compute(plan)
        self._scheduler.advance(plan)
        return self._progress(plan) + self._draw(logits, Trial.all_of(plan, self._generations))

    def _progress(self, plan: Plan) -> list[Event]:
        """How far the prompts are that are read in parts, for those who ask."""
        now = time.monotonic()
        found = []
        for chunk in plan:
            sequence = chunk.sequence
            if sequence.request.report_progress and not chunk.completes and sequence.drawn == 0:
                seconds = now - (now if sequence.started_at is None else sequence.started_at)
                total, cached = sequence.prompt_length, sequence.cached_tokens
                progress = Progress(total, cached, min(sequence.computed, total), seconds)
                found.append(Event(sequence.id, progress=progress))
        return found

    def _compute(self, plan: Plan) -> torch.Tensor:
        """Logits of a plan's wanted rows; chunks of one setting of theta at a time, by which it is sorted."""
        found = []
        for setting, chunks in self._theta.groups(plan):
            with self._theta.applied(setting) as recorded:
                found.append(self._runner.run(self._batches.build(chunks), recorded=recorded))
        return found[0] if len(found) == 1 else torch.cat(found)

    def _launch(self, plan: Plan) -> Flight | None:
        """Run a step and draw its tokens without waiting for them, where the next one may follow at once."""
        if not self.kernels.draws or self._speculator is not None:
            return None
        if not all(chunk.completes for chunk in plan):
            return None
        generations = [self._generations[chunk.sequence.id] for chunk in plan]
        if not all(generation.foreseeable for generation in generations):
            return None
        if any(chunk.sequence.theta.root != self._theta.default.root for chunk in plan):
            return None
        return self._lookahead.launch(
            plan, self._batches.build(plan), [generation.row for generation in generations]
        )

    def _follow(self, flight: Flight) -> Flight | None:
        """Launch the step behind one whose tokens are not known yet, if only these are missing."""
        landing = {chunk.sequence.id for _, chunk, _ in flight.rows()}
        others = self._scheduler.waiting or self._embeddings.has_work
        if others or any(sequence.id not in landing for sequence in self._scheduler.running):
            return None
        sequences = {row: chunk.sequence for row, chunk, _ in flight.rows() if chunk.sequence.left > 1}
        generations = [self._generations[sequence.id] for sequence in sequences.values()]
        if not generations or not all(generation.foreseeable for generation in generations):
            return None
        if not all(self._blocks.grow(one, len(one.tokens) + 1) for one in sequences.values()):
            return None
        self.counters.steps += 1
        return self._lookahead.follow(flight, sequences, [generation.row for generation in generations])

    def _land(self, flight: Flight) -> list[Event]:
        """Launch the next step if that is possible, then wait for the tokens of this one and take them in."""
        self._flight = following = self._follow(flight)
        tokens = flight.arriving.wait()
        landed = flight.rows()
        self._scheduler.advance([chunk for _, chunk, _ in landed])
        events = []
        for row, chunk, drawing in landed:
            generation, draw = self._generations[chunk.sequence.id], Draw(tokens[row])
            if draw.token < 0:
                self._lookahead.drop(following, chunk.sequence)
                self._sampler.put_back(chunk.sequence.id, drawing)
                [draw] = self._sampler.sample(flight.logits[row : row + 1], [generation.row])
            trial = Trial(generation, row)
            self._accept(trial, draw)
            events.append(self._conclude(trial))
        if following is not None and not following.rows():
            self._flight = None
        return events

    def _recall(self) -> None:
        """Give up the step under way, as if it had not been launched."""
        flight, self._flight = self._flight, None
        if flight is not None:
            for _, chunk, _ in flight.rows():
                self._lookahead.drop(flight, chunk.sequence)

    def _draw(self, logits: torch.Tensor, trials: list[Trial]) -> list[Event]:
        """Draw from the rows of the logits, float32 [n, vocab], that count; one event for each sequence."""
        going = trials
        while going:
            # Without drafts all rows count, and none needs to be copied.
            rows = logits if len(going) == len(logits) else logits[[trial.row for trial in going]]
            draws = self._sampler.sample(rows, [trial.generation.row for trial in going])
            for trial, draw in zip(going, draws, strict=True):
                self._accept(trial, draw)
            going = [trial for trial in going if trial.going]
        return [self._conclude(trial) for trial in trials]

    def _accept(self, trial: Trial, draw: Draw) -> None:
        """Give a token to its generation, and do what the verdict asks for, but for an end."""
        sequence = trial.generation.sequence
        if draw is NO_DRAW:
            trial.take(draw.token, trial.generation.flush(FinishReason.ERROR))
            return
        if sequence.first_token_at is None:
            sequence.first_token_at = time.monotonic()
        self.counters.generated_tokens += 1
        verdict = trial.generation.accept(draw)
        trial.take(draw.token, verdict)
        if trial.going:
            self._scheduler.accept(sequence)
        if verdict.rewind and verdict.finish is None:
            # The last token that stays is computed again: its logits say what else may come.
            self._blocks.truncate(sequence, len(sequence.tokens) - 1)
            if self._speculator is not None:
                self._speculator.take_back(sequence)

    def _conclude(self, trial: Trial) -> Event:
        """What a step has brought to a sequence."""
        sequence, verdict = trial.generation.sequence, trial.verdict
        assert verdict is not None, "every sequence draws once"
        if trial.draft and self._speculator is not None:
            self._speculator.learn(sequence, len(trial.draft), trial.accepted)
        if verdict.finish is not None:
            error = self._damage() if verdict.finish is FinishReason.ERROR else None
            return self._end(trial.generation, verdict, error)
        return Event(sequence.id, verdict.text, verdict.tokens, verdict.logprobs)

    def _damage(self) -> str:
        """Why the model computes values that are no numbers, as far as that is known."""
        found = self._model.damage() or "its file may be damaged; download or copy it again"
        return f"the model computed values that are not numbers: {found}"

    def _end(self, generation: Generation, last: Verdict, error: str | None = None) -> Event:
        """Forget a generation and give its blocks back; its last event."""
        sequence, reason, counters = generation.sequence, last.finish, self.counters
        usage = sequence.usage(time.monotonic(), self._sampler.seed(sequence.id))
        self._scheduler.finish(sequence)
        self._sampler.remove(sequence.id)
        if self._speculator is not None:
            self._speculator.forget(sequence)
        del self._generations[sequence.id]
        if self._flight is not None:
            self._flight.void.add(sequence.id)
        counters.last_usage, counters.last_finish = usage, reason
        counters.last_drafted_tokens = sequence.drafted_tokens
        counters.last_accepted_tokens = sequence.accepted_tokens
        if reason is FinishReason.ABORT:
            counters.requests_aborted += 1
        else:
            counters.requests_finished += 1
        refusal = generation.refusal if reason is FinishReason.ERROR else None
        return Event(
            sequence.id,
            last.text,
            last.tokens,
            last.logprobs,
            finish=reason,
            usage=usage,
            error=error if refusal is None else refusal,
            refused=refusal is not None,
        )
