"""What each part of a run does, by its kind."""

from collections.abc import Iterator

import torch

from benchmarks.gpu.bandwidth import bandwidth
from benchmarks.gpu.check import run_checks
from benchmarks.gpu.check_attention import attention_checks
from benchmarks.gpu.check_products import launch_checks, product_checks, star_checks
from benchmarks.gpu.check_rest import rest_checks
from benchmarks.gpu.compile import compile_kernels
from benchmarks.gpu.peer import peer
from benchmarks.gpu.plan import Part
from benchmarks.gpu.settings import Figures, Settings
from benchmarks.gpu.steps import steps, theta
from benchmarks.gpu.stopwatch import stopwatch
from engine.gguf import GGMLType
from engine.kv_cache import CacheFormat


# As a decorator it holds only while the generator runs, not between two of its values.
@torch.inference_mode()
def run_part(part: Part, settings: Settings) -> Iterator[Figures]:
    """The part's figures as they come. Raises whatever ends it; those before stay good."""
    stopwatch(torch.device(settings.device))  # makes the card the current one
    match part.kind:
        case "products":
            yield from run_checks(product_checks(settings, [GGMLType[name] for name in part.arguments]))
        case "launches":
            yield from run_checks(launch_checks(settings))
        case "stars":
            yield from run_checks(star_checks(settings))
        case "attention":
            yield from run_checks(attention_checks(settings, CacheFormat[part.arguments[0]]))
        case "rest":
            yield from run_checks(rest_checks(settings))
        case "compile":
            what, *counts = part.arguments
            yield from compile_kernels(settings, what, counts)
        case "bandwidth":
            yield from bandwidth(settings)
        case "steps":
            yield from steps(settings)
        case "theta":
            yield from theta(settings)
        case "engine":
            # The whole engine needs packages that its kernels do without, and that may not be here.
            from benchmarks.gpu.engine import engine_speed

            yield from engine_speed(settings)
        case "perplexity":
            from benchmarks.gpu.quality import perplexity

            yield from perplexity(settings)
        case "peer":
            yield from peer(settings)
        case _:
            raise ValueError(f"no part is called {part.kind}")
