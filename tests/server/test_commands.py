"""The commands beside `serve`, each as its own process: exit codes, and what goes to stdout and to stderr."""

import json
import socket
from pathlib import Path

import pytest

from tests.server.test_cli import run
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
