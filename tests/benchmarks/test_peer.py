import resource
import sys
from pathlib import Path

import pytest

from benchmarks.peer import LlamaBench, PeerError, load_seconds, parse_results, run_bench

DECODED = (
    '{"build_commit": "unknown", "cpu_info": "AMD EPYC", "backends": "CPU", "model_filename": "model.gguf",'
    ' "model_type": "llama 256M Q4_1", "model_size": 96576768, "n_threads": 2, "n_prompt": 0,'
    ' "n_gen": 16, "n_depth": 0,'
    ' "test_time": "2026-11-24T20:18:10Z", "avg_ns": 2296190341, "stddev_ns": 0, "avg_ts": 6.968063,'
    ' "stddev_ts": 0.000000, "samples_ns": [ 2296190341 ],"samples_ts": [ 6.96806 ]}\n'
)
LOG = (
    "set_n_threads: n_threads = 2, n_threads_batch = 2\n"
    "llama_perf_context_print:        load time =     199.86 ms\n"
    "llama_perf_context_print: prompt eval time =       0.00 ms /     1 tokens (    0.00 ms per token)\n"
    "llama_perf_context_print:       total time =     235.76 ms /     3 tokens\n"
)


def _program(directory: Path, body: str) -> Path:
    path = directory / "llama-bench"
    path.write_text(f"#!{sys.executable}\nimport sys\n{body}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def test_results_are_found_among_other_lines() -> None:
    results = parse_results(["warning: debug build\n", DECODED, "\n", "3\n"])
    assert [result["avg_ts"] for result in results] == [6.968063]


def test_the_load_time_is_read_from_the_log() -> None:
    assert load_seconds(LOG) == pytest.approx(0.19986)


def test_a_log_without_load_time_is_an_error() -> None:
    with pytest.raises(PeerError, match="load time"):
        load_seconds("llama_perf_context_print: total time = 1.0 ms\n")


def test_a_run_gives_speed_load_time_and_memory(tmp_path: Path) -> None:
    program = _program(tmp_path, f"sys.stderr.write({LOG!r})\nsys.stdout.write({DECODED!r})")
    bench = LlamaBench(program, Path("model.gguf"), threads=2)
    assert bench.decode() == {"decode": 6.968063}
    assert bench.build == "unknown"
    load = bench.load()
    assert load["load"] == pytest.approx(0.19986)
    assert load["start"] > 0
    # Linux counts what a process held before it executed the program, too: a copy of this one.
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    assert 1 < bench.memory()["rss"] < max(1000, 2 * own)


def test_what_is_measured_is_what_the_program_is_told(tmp_path: Path) -> None:
    told = tmp_path / "told"
    body = f"open({str(told)!r}, 'a').write(' '.join(sys.argv[1:]) + chr(10))\nsys.stdout.write({DECODED!r})"
    bench = LlamaBench(_program(tmp_path, body), Path("model.gguf"), threads=3)
    bench.decode()
    bench.prefill()
    common = "-m model.gguf -t 3 -r 1 -o jsonl"
    assert told.read_text(encoding="utf-8").splitlines() == [
        f"{common} -p 0 -n 128",
        f"{common} -p 512 -n 0",
    ]


def test_a_failure_is_told_in_the_programs_last_words(tmp_path: Path) -> None:
    program = _program(tmp_path, "sys.exit('some noise\\nfailed to load model')")
    with pytest.raises(PeerError, match=r"failed to load model$"):
        run_bench([str(program)])


def test_a_run_without_result_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(PeerError, match="it said nothing"):
        run_bench([str(_program(tmp_path, "pass"))])
