"""What `benchmarks.cpu` found, for people and as JSON."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmarks.ratios import Pairs
from benchmarks.sizes import CONTEXT, NEW_TOKENS, PROMPT_TOKENS, RSS_NEW_TOKENS, STREAM_TOKENS, STREAMS

_MARGIN = 1.15
_FIXED_MB = 250.0


@dataclass(frozen=True, slots=True)
class Figure:
    """One quantity that is measured."""

    key: str
    """Of our side's median in the JSON; the other side's has `peer_` or `limit_` in front."""
    unit: str
    meaning: str
    digits: int = 1
    fraction: str = ""
    """Key of the ratio where the other side is the machine's limit."""


FIGURES = {
    "decode": Figure(
        "decode_tokens_per_second",
        "tokens/s",
        f"{NEW_TOKENS} tokens, one at a time, from an almost empty context; ours with scheduler, greedy "
        "sampling and text, llama-bench (tg) without",
        fraction="decode_memory_fraction",
    ),
    "prefill": Figure(
        "prefill_tokens_per_second",
        "tokens/s",
        f"a new prompt of {PROMPT_TOKENS} tokens to its first token; llama-bench pp",
        fraction="prefill_gemm_fraction",
    ),
    "load": Figure(
        "load_seconds",
        "s",
        "a fresh process with the file in the page cache: ours from Engine.load, imports done, to the first "
        "token behind a prompt of one; llama.cpp's own load time, from opening the file to the end of the "
        "first evaluation; lower is better",
        digits=3,
    ),
    "start": Figure(
        "start_seconds",
        "s",
        "the same runs from the start of the process to that token, Python's imports included",
        digits=3,
    ),
    "rss": Figure(
        "rss_mb",
        "MB",
        f"ours resident after a prompt of {PROMPT_TOKENS} and {RSS_NEW_TOKENS} tokens in a context of "
        f"{CONTEXT}; llama-bench's peak for the same tokens in contexts that just hold them; lower is better",
    ),
    "rss_peak": Figure("rss_peak_mb", "MB", "the same with our peak, loading included"),
    "batch8": Figure(
        "batch8_tokens_per_second",
        "tokens/s",
        f"{STREAMS} HTTP streams of {STREAM_TOKENS} tokens together, from the first request to the end",
    ),
    "busy": Figure("busy_tokens_per_second", "tokens/s", "decode while another process keeps one core busy"),
}


@dataclass(frozen=True, slots=True)
class Measured:
    """All values of one figure, ours alone or in pairs with another side."""

    name: str
    ours: tuple[float, ...]
    theirs: tuple[float, ...] = ()
    other: str = ""
    """`peer` or `limit`."""

    @property
    def pairs(self) -> Pairs | None:
        """None where nothing was measured beside ours."""
        return Pairs(self.ours, self.theirs) if self.theirs else None


def as_json(measured: Sequence[Measured]) -> dict[str, Any]:
    """Medians, ratios, their quartiles and how many pairs they come from, in one flat object."""
    said: dict[str, Any] = {}
    for each in measured:
        figure, pairs = FIGURES[each.name], each.pairs
        said[figure.key] = statistics.median(each.ours)
        if pairs is not None:
            ratio = figure.fraction if each.other == "limit" else f"{each.name}_ratio"
            said[f"{each.other}_{figure.key}"] = statistics.median(each.theirs)
            said[ratio] = pairs.median
            said[f"{ratio}_quartiles"] = list(pairs.quartiles)
        said[f"{each.name}_pairs"] = len(each.ours)
    return said


def rss_limit(rss_mb: float, file_bytes: int, kv_bytes: int) -> dict[str, Any]:
    """What memory our process may take, in MB (10^6 bytes), and whether it takes more."""
    limit = (_MARGIN * file_bytes + kv_bytes) / 1e6 + _FIXED_MB
    return {"rss_limit_mb": limit, "rss_over_limit": rss_mb > limit}


def print_report(title: str, measured: Sequence[Measured], said: Mapping[str, Any]) -> None:
    """A table of all that was measured, and what each row means. To stdout."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=110)
    table = Table("", "ours", "other side", "ours over it", "middle half", "pairs", title=Text(title))
    table.title_justify = "left"
    for each in measured:
        table.add_row(*_row(each))
    console.print(table)
    for each in measured:
        console.print(f"{each.name}: {FIGURES[each.name].meaning}.")
    if any(each.other == "limit" for each in measured):
        console.print(
            "other side, decode: the weights read at the best bandwidth of summing 256 MiB; prefill: the "
            "layers' products at torch's float32 speed."
        )
    console.print(f"load average when the run began: {said['load_average']:.2f}; above 0.5, run it again.")
    if "rss_limit_mb" in said:
        verdict = "over" if said["rss_over_limit"] else "within"
        console.print(
            f"rss is {verdict} {said['rss_limit_mb']:.0f} MB: {_MARGIN} x the file, the KV cache of one "
            f"context, and {_FIXED_MB:.0f} MB."
        )


def print_profile(parts: Mapping[str, float]) -> None:
    """Where one decode step's time goes. To stdout."""
    table = Table("part", "us", "share", title=Text("one decode step"), title_justify="left")
    for name, spent in parts.items():
        table.add_row(name, f"{spent:.0f}", f"{100 * spent / parts['whole']:.1f} %")
    Console(highlight=False).print(table)


def _row(each: Measured) -> tuple[str, ...]:
    figure, pairs = FIGURES[each.name], each.pairs
    head = f"{each.name}, {figure.unit}", f"{statistics.median(each.ours):.{figure.digits}f}"
    if pairs is None:
        return *head, "", "", "", str(len(each.ours))
    lower, upper = pairs.quartiles
    theirs = f"{statistics.median(each.theirs):.{figure.digits}f}"
    return *head, theirs, f"{pairs.median:.3f}", f"{lower:.3f} to {upper:.3f}", str(len(each.ours))
