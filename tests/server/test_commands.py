"""The commands beside `serve`, each as its own process: exit codes, and what goes to stdout and to stderr."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from engine.native import native_kernels
from tests.server.test_cli import ROOT, run
from tests.support.stars import write_star_model

TEXT = "The hello world and the world is to hello of a thing. " * 8


@pytest.fixture(scope="module")
def star_model(tiny_model: Path) -> Path:
    return write_star_model(tiny_model.with_name("commands.nkat"), tiny_model)[0]


@pytest.fixture(scope="module")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(TEXT)
    return path


def test_select(star_model: Path) -> None:
    done = run("select", "--model", str(star_model), "--device", "cpu", "--theta-gamma", "0.5", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    choice = json.loads(done.stdout)["choice"]
    assert (choice["engine"]["value"], choice["gamma"]["value"]) == ("nkat", 0.5)
    shown = run("select", "--model", str(star_model), "--device", "cpu", "--no-theta")
    assert shown.returncode == 0
    assert "theta is switched off" in shown.stdout


@pytest.mark.parametrize("name", [*native_kernels(), "reference"])
def test_kernels_by_environment(star_model: Path, text_file: Path, name: str) -> None:
    model = ("--model", str(star_model), "--json")
    done = run("select", *model, "--device", "cpu", NKAT_KERNELS=name)
    assert json.loads(done.stdout)["choice"]["kernels"]["value"] == name
    done = run("bench", *model, "--no-eval", "--seq-len", "8", "--new-tokens", "2", NKAT_KERNELS=name)
    assert json.loads(done.stdout)["kernels"] == name
    done = run("perplexity", *model, "--text", str(text_file), "--ctx", "16", NKAT_KERNELS=name)
    assert json.loads(done.stdout)["perplexity"] > 1


def test_kernels_that_there_are_not(star_model: Path) -> None:
    done = run("bench", "--model", str(star_model), "--no-eval", NKAT_KERNELS="magic")
    assert done.returncode == 2
    assert "no kernels 'magic' on cpu; there are: " in done.stderr
    assert done.stderr.count("\n") == 1


def test_doctor_0_and_json(star_model: Path) -> None:
    done = run(
        *("doctor", "--model", str(star_model), "--theta-gamma", "0.9", "--contextsize", "64"),
        *("--device", "cpu", "--threads", "1", "--host", "127.0.0.1", "--port", "0", "--json"),
    )
    assert (done.returncode, done.stderr) == (0, "")
    said = json.loads(done.stdout)
    assert said["ok"]
    (theta,) = (one for one in said["findings"] if one["subject"] == "theta")
    assert theta["text"] == "rank 4, 14 tensors"


def test_doctor_1_for_a_problem(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = run("doctor", "--port", str(taken.getsockname()[1]))
    assert done.returncode == 1
    assert "problem" in done.stdout
    missing = run("doctor", "--port", "0", "--model", str(tmp_path / "none.gguf"))
    assert missing.returncode == 1
    assert missing.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("doctor", "--port", "0", "--device", "gpu"), "--device"),
        (("doctor", "--port", "0", "--theta-gamma", "2"), "--theta-gamma"),
        (("select", "--model", "/no/such.gguf"), "/no/such.gguf"),
        (("perplexity", "--model", "/no/such.gguf", "--text", "/no/such.txt"), "/no/such.txt"),
    ],
)
def test_what_the_user_can_mend_is_one_line_and_2(arguments: tuple[str, ...], words: str) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert done.stderr.startswith("nkat: ")
    assert done.stderr.count("\n") == 1


def test_unknown_flags_are_2() -> None:
    assert run("doctor", "--prot", "1").returncode == 2
    assert run("select").returncode == 2


def test_perplexity_with_theta_and_without(star_model: Path, text_file: Path) -> None:
    command = ["perplexity", "--model", str(star_model), "--text", str(text_file), "--ctx", "16"]
    command += ["--windows", "3", "--threads", "1", "--device", "cpu", "--json"]
    found = {}
    for flags in ((), ("--no-theta",), ("--theta-gamma", "0")):
        done = run(*command, *flags)
        assert done.returncode == 0, done.stderr
        found[flags] = json.loads(done.stdout)["perplexity"]
    assert found[()] != found["--no-theta",]
    assert found["--theta-gamma", "0"] == found["--no-theta",]


BENCH_KEYS = {
    *("tokens_per_second", "avg_latency_ms", "device", "theta_enabled", "overhead_percentage"),
    *("prefill_tokens_per_second", "load_seconds", "memory_bytes", "perplexity", "perplexity_error", "tpe"),
    *("tpe_class", "rank", "gamma", "kernels", "threads", "model", "seq_len", "iterations"),
}
COMPARE_KEYS = {
    *("nkat_tokens_per_second", "baseline_tokens_per_second", "overhead_percentage", "lambda_theta"),
    *("estimated_perplexity_improvement", "nkat_perplexity", "nkat_perplexity_error", "baseline_perplexity"),
    *("baseline_perplexity_error", "nkat_tpe", "baseline_tpe", "memory_bytes", "load_seconds"),
}
QUICK = ("--seq-len", "16", "--new-tokens", "2", "--iterations", "2", "--threads", "1", "--no-cuda")


def quick(text_file: Path) -> tuple[str, ...]:
    return (*QUICK, "--text", str(text_file), "--windows", "2", "--ctx", "16")


def test_bench(star_model: Path, text_file: Path, tmp_path: Path) -> None:
    output = tmp_path / "bench.json"
    output.write_text("what was there before")
    done = run("bench", "--model", str(star_model), "--json", "--output", str(output), *quick(text_file))
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said.keys() >= BENCH_KEYS
    assert json.loads(output.read_text()) == said
    assert list(tmp_path.iterdir()) == [output]
    assert (said["theta_enabled"], said["rank"], said["device"], said["threads"]) == (True, 4, "cpu", 1)


def test_bench_of_the_baseline(star_model: Path) -> None:
    done = run("bench", "--model", str(star_model), "--no-theta", "--no-eval", "--json", *QUICK)
    said = json.loads(done.stdout)
    assert (said["theta_enabled"], said["overhead_percentage"], said["perplexity"]) == (False, None, None)


def test_compare(star_model: Path, text_file: Path) -> None:
    command = ("compare", "--model", str(star_model), "--theta-gamma", "0.5", *quick(text_file))
    said = json.loads(run(*command, "--json").stdout)
    assert said.keys() >= COMPARE_KEYS
    assert said["gamma"] == 0.5
    assert said["nkat_perplexity"] != said["baseline_perplexity"]
    shown = run(*command)
    assert shown.returncode == 0
    for words in ("baseline", "perplexity", "TPE", "7B", "gamma 0.5", "text.txt"):
        assert words in shown.stdout


def test_theta_is_not_judged_by_what_made_it(tiny_model: Path, star_model: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.nkat"
    made = ("--steps", "1", "--ctx", "16", "--no-eval", "--device", "cpu", "--threads", "1")
    done = run("convert", "--input", str(tiny_model), "--output", str(own), *made)
    assert done.returncode == 0, done.stderr
    for model, text in ((own, "source code of"), (star_model, "pydoc_data.topics")):
        done = run("compare", "--model", str(model), *QUICK, "--windows", "1", "--ctx", "16")
        assert text in done.stdout, done.stderr


def test_the_guides_spelling(star_model: Path, text_file: Path) -> None:
    """`python -m engine` is the same command."""
    command = [sys.executable, "-W", "error", "-m", "engine", "--model", str(star_model), "--benchmark"]
    command += [*quick(text_file), "--json"]
    for flags, keys in (((), BENCH_KEYS), (("--compare",), COMPARE_KEYS)):
        done = subprocess.run(
            [*command, *flags], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout).keys() >= keys


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("compare", "--model", "PLAIN"), "nothing to compare"),
        (("bench", "--compare", "--no-theta", "--model", "STAR"), "nothing to compare"),
        (("compare", "--model", "PLAIN", "--theta-path", "PLAIN"), "holds no theta"),
        (("bench", "--model", "/no/such.gguf"), "/no/such.gguf"),
        (("bench", "--model", "STAR", "--theta-gamma", "2"), "gamma must lie between"),
        (("bench", "--model", "STAR", "--text", "/no/such.txt"), "/no/such.txt"),
        (("bench", "--model", "STAR", "--output", "/no/such/folder/x.json"), "no such folder"),
        (("bench", "--model", "STAR", "--device", "gpu"), "gpu"),
    ],
)
def test_what_cannot_be_measured_is_one_line_and_2(
    arguments: tuple[str, ...], words: str, tiny_model: Path, star_model: Path
) -> None:
    places = {"PLAIN": str(tiny_model), "STAR": str(star_model)}
    done = run(*(places.get(word, word) for word in arguments))
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert done.stderr.startswith("nkat: ")
    assert done.stderr.count("\n") == 1


def test_nothing_heavy_for_help() -> None:
    code = (
        "import sys\nfrom server.cli import app\ntry:\n    app([sys.argv[1], '--help'])\n"
        "except SystemExit:\n    pass\nassert 'torch' not in sys.modules\n"
    )
    for name in ("bench", "compare", "select", "doctor"):
        subprocess.run(
            [sys.executable, "-c", code, name], cwd=ROOT, check=True, capture_output=True, timeout=60
        )
