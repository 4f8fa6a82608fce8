"""HTTP servers for the time of a measurement: ours and llama.cpp's, started the same way."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO

from benchmarks.peer import PeerError
from benchmarks.processes import end, start
from benchmarks.sizes import STREAM_CONTEXT, STREAMS
from benchmarks.streams import answers, stream_all

_PATIENCE_SECONDS = 120.0


class RunningServer:
    """A server that answers `/v1/completions` on this machine. A context manager; idle until asked."""

    def __init__(self, command: list[str], port: int, environment: dict[str, str]) -> None:
        """Start it and wait until it has answered. Raises `PeerError` if it ends or takes too long."""
        self.port = port
        self._round = 0
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the server
        self._process = start(command, stdout=self._log, stderr=subprocess.STDOUT, env=environment)
        try:
            self._wait(command)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "RunningServer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def streams(self) -> dict[str, float]:
        """Tokens/s of all streams together; the same prompts for every server, and new ones each time."""
        self._round += 1
        return {"batch8": stream_all(self.port, self._round)}

    def close(self) -> None:
        """Stop it, and wait for its end."""
        end(self._process)
        self._log.close()

    def _wait(self, command: list[str]) -> None:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not answers(self.port):
            if self._process.poll() is not None:
                self._log.seek(0)
                said = self._log.read().decode(errors="replace").strip().splitlines()
                raise PeerError(f"{command[0]} did not start: {said[-1] if said else 'it said nothing'}")
            if time.monotonic() > deadline:
                raise PeerError(f"{command[0]} did not answer within {_PATIENCE_SECONDS:.0f} s")
            time.sleep(0.2)


def our_server(model: Path, threads: int) -> RunningServer:
    """`nkat serve`, with the context of a stream and a cache for all of them."""
    return server_of(model, threads, context=STREAM_CONTEXT // STREAMS, cache=STREAM_CONTEXT)


def server_of(model: Path, threads: int, *, context: int, cache: int) -> RunningServer:
    """`nkat serve` with a context, and a cache over all requests, of so many tokens."""
    port = _free_port()
    command = [sys.executable, "-m", "server", "serve", "--model", str(model), "--device", "cpu"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--threads", str(threads), "--quiet"]
    command += ["--contextsize", str(context), "--kvtokens", str(cache)]
    return RunningServer(command, port, os.environ | {"OMP_NUM_THREADS": str(threads)})


def llama_server(program: str, model: Path, threads: int) -> RunningServer:
    """llama-server, which divides its context among its streams."""
    port = _free_port()
    command = [program, "-m", str(model), "-np", str(STREAMS), "-c", str(STREAM_CONTEXT)]
    command += ["-t", str(threads), "--host", "127.0.0.1", "--port", str(port)]
    return RunningServer(command, port, dict(os.environ))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
