"""The command, as its own process."""

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

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
        "print('TORCH' if 'torch' in sys.modules else 'LIGHT', 'UVICORN' if 'uvicorn' in sys.modules else '')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert "--contextsize" in done.stdout
    assert done.stdout.rstrip().endswith("LIGHT")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "--model"),
        (("--model", "/no/such/file.gguf"), "/no/such/file.gguf"),
        (("--model", "x", "--port", "99999"), "65535"),
        (("--model", "x", "--config", "/none.toml"), "/none.toml"),
        (("--model", "x", "--host", "no.such.host.invalid"), "--host"),
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


def test_a_port_in_use_is_told_before_the_model_is_read() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("serve", "--model", "/no/such/file.gguf", "--port", str(port))
    assert done.returncode == 2
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_it_cleanly(tiny_model: Path, sent: signal.Signals, code: int) -> None:
    command = [sys.executable, "-m", "server", "serve", "--model", str(tiny_model), "--port", "0"]
    command += ["--skiplauncher", "--threads", "1", "--contextsize", "512"]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
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
