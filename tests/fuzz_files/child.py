"""The process that loads mutants: seeds come in, a line of JSON goes out for each. It may die of one."""

import gc
import json
import logging
import os
import resource
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from math import isfinite
from pathlib import Path
from typing import Any

from engine.config import EngineConfig
from engine.engine import Engine
from engine.errors import NkatError
from engine.types import FinishReason, GenerationRequest, Prompt, SamplingParams, TextPrompt, TokenPrompt
from tests.fuzz_files.bases import write_bases
from tests.fuzz_files.mutations import Mutant, mutate
from tests.support.kernels import ALL

CONTEXT = 48
GROWTH = 512 << 20
"""Memory that one mutant may take beyond what the process had before."""
THREADS = 64
"""Of the process, when no engine is left."""
LONGEST = 400
"""Characters of a message, the path apart."""


def main(cpu_seconds: float, limited: bool) -> None:
    """Load the mutants of the seeds that come in. `limited`: the address space is."""
    warnings.simplefilter("error", RuntimeWarning)
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder:
        bases_folder, work = Path(folder, "bases"), Path(folder, "mutant")
        bases_folder.mkdir()
        work.mkdir()
        bases = write_bases(bases_folder)
        _try(Mutant(-1, bases[0], {n: layout.raw for n, layout in bases[0].files.items()}, ()), work, ALL)
        print(json.dumps({"ready": True}), flush=True)
        for line in sys.stdin:
            seed = int(line)
            mutant = mutate(bases, seed)
            outcome = {
                "seed": seed,
                "changes": mutant.changes,
                **_outcome(mutant, work, cpu_seconds, limited),
            }
            print(json.dumps(outcome), flush=True)


def _outcome(mutant: Mutant, work: Path, cpu_seconds: float, limited: bool) -> dict[str, Any]:
    before = _resident()
    # Its signal ends the process, and says why.
    signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
    try:
        with _address_space(limited):
            outcome = _try(mutant, work, ALL)
    except Exception:
        return {"failed": traceback.format_exc()[-3000:]}
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    gc.collect()  # engines with their threads, which tracebacks keep
    grown = _resident() - before
    if grown > GROWTH:
        return {"failed": f"{grown >> 20} MiB more than before"}
    if len(os.listdir("/proc/self/task")) > THREADS:
        return {"failed": "engines are left, with their threads"}
    return {"outcome": outcome}


def _try(mutant: Mutant, work: Path, kernels: tuple[str, ...]) -> str:
    """Load and run a mutant with all kernels; what came of it. Raises whatever must not happen."""
    for name, raw in mutant.files.items():
        # A new file: the old one may still be mapped.
        (work / name).unlink(missing_ok=True)
        (work / name).write_bytes(raw)
    outcomes = set()
    for name in kernels:
        try:
            outcomes.add(_run(mutant, work, name))
        except NkatError as error:
            _check_message(str(error), work)
            outcomes.add("refused")
    return "+".join(sorted(outcomes))


def _run(mutant: Mutant, work: Path, kernels: str) -> str:
    base = mutant.base
    config = EngineConfig(
        work / base.model,
        context_length=CONTEXT,
        kernels=kernels,
        # torch's own threads wait for each other for longer than tiny matrices take.
        threads=1 if kernels == "reference" else 2,
        theta_path=None if base.sidecar is None else work / base.sidecar,
        draft_model=None if base.draft is None else work / base.draft,
        max_sequences=4,
        token_budget=32,
    )
    engine = Engine.load(config)
    if mutant.seed % 2:
        engine.kernels.settle()
    last = engine.tokenizer.vocab_size - 1
    prompts: tuple[Prompt, ...] = (TextPrompt("hello the"), TokenPrompt((0, last, last // 2)))
    params = (SamplingParams(temperature=0.0), SamplingParams(top_k=40, top_p=0.9, seed=1))
    for number, (prompt, sampling) in enumerate(zip(prompts, params, strict=True)):
        wanted = 1 if number else None
        request = GenerationRequest(str(number), prompt, 4, sampling, ignore_eos=True, logprobs=wanted)
        engine.add(engine.prepare(request))
    found = set()
    while engine.has_work:
        for event in engine.step():
            assert all(isfinite(one.logprob) for one in event.logprobs), "a probability that is no number"
            if event.finish is FinishReason.ERROR:
                assert event.error is not None
                assert "not numbers" in event.error
                _check_message(event.error, work)
                found.add("no numbers")
            elif event.finish is not None:
                found.add("reply")
        engine.check_integrity()
    return "+".join(sorted(found))


def _check_message(message: str, work: Path) -> None:
    rest = message.replace(str(work), "")
    assert message.isprintable(), f"not one printable line: {message!r}"
    assert len(rest) <= LONGEST, f"{len(rest)} characters: {message!r}"


@contextmanager
def _address_space(limited: bool) -> Iterator[None]:
    """Room for `GROWTH` more, so that what asks for too much is refused instead of taking it."""
    if not limited:
        yield
        return
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + 2 * GROWTH, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


if __name__ == "__main__":
    main(float(sys.argv[1]), sys.argv[2] == "limited")
