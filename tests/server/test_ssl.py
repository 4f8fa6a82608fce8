"""https: the files are looked at before anything else, and the server speaks it."""

import re
import shutil
import signal
import ssl
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from engine.errors import ConfigError
from server.tls import check_certificate
from tests.server.live import PATIENCE
from tests.server.test_cli import ROOT, run

OPENSSL = shutil.which("openssl")

pytestmark = pytest.mark.skipif(OPENSSL is None, reason="openssl makes the certificates")


@dataclass(frozen=True)
class Pair:
    """A certificate for 127.0.0.1, its key, and the key encrypted."""

    certificate: Path
    key: Path
    encrypted: Path


def openssl(*arguments: str | Path) -> None:
    assert OPENSSL is not None
    subprocess.run([OPENSSL, *arguments], check=True, capture_output=True, timeout=30)


def make_pair(folder: Path, name: str) -> Pair:
    pair = Pair(folder / f"{name}.crt", folder / f"{name}.key", folder / f"{name}.encrypted.key")
    openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", pair.key)
    openssl(
        *("req", "-x509", "-new", "-key", pair.key, "-out", pair.certificate, "-days", "2"),
        *("-subj", "/CN=nkat test", "-addext", "subjectAltName=IP:127.0.0.1"),
    )
    openssl("ec", "-in", pair.key, "-aes128", "-passout", "pass:secret", "-out", pair.encrypted)
    return pair


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make_pair(tmp_path_factory.mktemp("tls"), "one")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make_pair(tmp_path_factory.mktemp("tls"), "other")


def test_a_sound_pair(pair: Pair) -> None:
    check_certificate(pair.certificate, pair.key)


def test_pairs_that_are_none(pair: Pair, other: Pair, tmp_path: Path) -> None:
    none = tmp_path / "none.pem"
    text = tmp_path / "text.pem"
    text.write_text("no certificate")
    for certificate, key, words in [
        (none, pair.key, "cannot read --ssl .*none.pem: No such file"),
        (pair.certificate, none, "cannot read --ssl .*none.pem: No such file"),
        (tmp_path, pair.key, "cannot read --ssl .*: Is a directory"),
        (pair.certificate, other.key, "other.key is not the key of the certificate"),
        (pair.certificate, pair.encrypted, "encrypted.key is encrypted"),
        (text, pair.key, "in PEM"),
        (pair.certificate, text, "in PEM"),
        (pair.key, pair.certificate, "in PEM"),
    ]:
        with pytest.raises(ConfigError, match=words) as caught:
            check_certificate(certificate, key)
        assert "\n" not in str(caught.value)


def test_the_pair_is_judged_before_the_model(pair: Pair, other: Pair) -> None:
    done = run("serve", "--model", "/no/such/file.gguf", "--ssl", str(pair.certificate), str(other.key))
    assert done.returncode == 2
    assert "is not the key" in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_server_speaks_https(tiny_model: Path, pair: Pair) -> None:
    command = [sys.executable, "-m", "server", "serve", "--model", str(tiny_model), "--port", "0"]
    command += ["--threads", "1", "--contextsize", "512", "--ssl", str(pair.certificate), str(pair.key)]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            said = ""
            for line in process.stdout:
                said += line
                if line.startswith("Ready"):
                    break
            assert "http://" not in said
            url = re.findall(r"https://127\.0\.0\.1:\d+", said)[0]
            trust = ssl.create_default_context(cafile=pair.certificate)
            with httpx.Client(base_url=url, verify=trust, timeout=PATIENCE) as client:
                assert client.get("/api/v1/model").json() == {"result": "koboldcpp/tiny"}
                body = {"prompt": "hello", "max_length": 4, "ban_eos_token": True}
                with client.stream("POST", "/api/extra/generate/stream", json=body) as reply:
                    assert '"finish_reason": "length"' in "".join(reply.iter_text())
            with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                httpx.get(url, verify=ssl.create_default_context())
            with pytest.raises(httpx.RemoteProtocolError):
                httpx.get(url.replace("https:", "http:"))
        finally:
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert "Traceback" not in errors
