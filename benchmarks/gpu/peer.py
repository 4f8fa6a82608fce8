"""llama.cpp's CUDA build on the same card: its llama-bench with a model file."""

from collections.abc import Iterator
from pathlib import Path

from benchmarks.gpu.settings import Figures, Settings
from benchmarks.peer import PeerError, run_bench, runnable

_NEW_TOKENS = 128
_ALL_LAYERS = 99


def peer(settings: Settings) -> Iterator[Figures]:
    """Tokens/s of decoding alone and of prompts of each length. Raises `PeerError`."""
    assert settings.llama_bench is not None
    assert settings.peer_model is not None
    prompts = ",".join(map(str, settings.sizes.prompts))
    largest = max(settings.sizes.prompts)
    run = run_bench(
        [
            *(runnable(Path(settings.llama_bench)), "-m", settings.peer_model, "-o", "jsonl"),
            *("-ngl", str(_ALL_LAYERS), "-fa", "1", "-r", str(settings.sizes.repeats)),
            *("-b", str(largest), "-p", prompts, "-n", str(_NEW_TOKENS)),
        ]
    )
    for result in run.results:
        speed, tokens, new = (result.get(key) for key in ("avg_ts", "n_prompt", "n_gen"))
        if not isinstance(speed, int | float) or not isinstance(tokens, int) or not isinstance(new, int):
            raise PeerError("llama-bench tells no avg_ts, n_prompt or n_gen")
        where = {"prefill": {str(tokens): speed}} if tokens else {"decode": {"1": speed}}
        yield {"peer": {"build": str(result.get("build_commit", "unknown")), **where}}
