"""The command, as its own process."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from server.settings import load_settings
from tests.server.live import PATIENCE

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "server", *arguments]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NKAT_")}
    environment |= variables
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_help_is_light() -> None:
    code = (
        "import sys\nsys.argv = ['nkat', 'serve', '--help']\n"
        "from server.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print('HEAVY:', *({'torch', 'fastapi', 'uvicorn'} & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert "--contextsize" in done.stdout
    assert done.stdout.rstrip().endswith("HEAVY:")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "--model"),
        (("--model", "/no/such/file.gguf"), "/no/such/file.gguf"),
        (("--model", "x", "--port", "99999"), "65535"),
        (("--model", "x", "--config", "/none.toml"), "/none.toml"),
        (("--model", "x", "--host", "no.such.host.invalid"), "--host"),
        (("--model", "/none.gguf", "--preloadstory", "/none.json"), "/none.json"),
        (("--model", "x", "--exportconfig", "/none.yaml"), "--exportconfig"),
    ],
)
def test_user_errors_are_one_line_and_2(arguments: tuple[str, ...], words: str) -> None:
    done = run("serve", "--quiet", "--port", "0", *arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("nkat: ")


def test_an_unknown_flag_is_2() -> None:
    assert run("serve", "--prot", "1").returncode == 2


def test_kobolds_flags_are_taken_and_told(tmp_path: Path) -> None:
    file = tmp_path / "my.kcpps"
    file.write_text(json.dumps({"model_param": "/no/such/file.gguf", "quantkv": 2, "lowvram": True}))
    done = run(
        *("serve", "--quiet", "--config", str(file), "--port", "0", "--usecublas", "normal", "-ngl", "99"),
        *("--mmproj", "m.gguf", "--lora", "l.gguf", "--ropeconfig", "0.5", "10000"),
    )
    assert done.returncode == 2
    told = [line.partition("server.commands.serve: ")[2] for line in done.stderr.splitlines()[:-1]]
    assert [line.partition(":")[0] for line in told] == [
        "--usecublas has no effect",
        "--mmproj has no effect",
        "--lora has no effect",
        "--ropeconfig has no effect",
        f"lowvram in {file} has no effect",
    ]
    assert "/no/such/file.gguf" in done.stderr.splitlines()[-1]


def test_settings_are_exported_and_nothing_runs(tmp_path: Path) -> None:
    file = tmp_path / "my.kcpps"
    flags = ("-c", "512", "--usecpu", "--ssl", "c.pem", "k.pem", "--password", "hush", "--debugmode", "1")
    done = run("serve", *flags, "--exportconfig", str(file), NKAT_THREADS="3")
    assert (done.returncode, done.stderr) == (0, "")
    assert "hush" not in file.read_text()
    settings = load_settings({}, file)
    assert (settings.contextsize, settings.device, settings.threads, settings.debugmode) == (
        512,
        "cpu",
        3,
        True,
    )
    assert settings.ssl == (Path("c.pem"), Path("k.pem"))


def test_a_port_in_use_is_told_before_the_model_is_read() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("serve", "--model", "/no/such/file.gguf", "--port", str(port))
    assert done.returncode == 2
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr


def ignore_signals() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def block_signals() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})


@pytest.mark.parametrize("parent", [None, ignore_signals, block_signals])
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_it_cleanly(
    tiny_model: Path, sent: signal.Signals, code: int, parent: Callable[[], None] | None
) -> None:
    """Also where the process that started it ignores or blocks them."""
    command = [sys.executable, "-m", "server", "serve", "--model", str(tiny_model), "--port", "0"]
    command += ["--skiplauncher", "--threads", "1", "--contextsize", "512"]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=parent
    ) as process:
        assert process.stdout is not None
        said = ""
        for line in process.stdout:
            said += line
            if line.startswith("Ready"):
                break
        port = int(re.findall(r"http://127\.0\.0\.1:(\d+)", said)[0])
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
            body = b'{"prompt": "hello", "max_length": 480, "ban_eos_token": true}'
            head = f"POST /api/extra/generate/stream HTTP/1.0\r\nContent-Length: {len(body)}\r\n\r\n"
            connection.sendall(head.encode() + body)
            assert connection.recv(100).startswith(b"HTTP/1.1 200")
            process.send_signal(sent)
            while connection.recv(1 << 16):
                pass
        _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == code
    assert "Traceback" not in errors
