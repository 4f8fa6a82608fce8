"""The certificate with which the server speaks https."""

import ssl
from pathlib import Path

from engine.errors import ConfigError


def check_certificate(certificate: Path, key: Path) -> None:
    """Raise `ConfigError` unless the two PEM files can be read and belong together.

    `certificate` may hold the chain behind the server's own certificate; `key` is not encrypted.
    """
    for path in (certificate, key):
        try:
            path.open("rb").close()
        except OSError as error:
            raise ConfigError(f"cannot read --ssl {path}: {error.strerror}") from None
    try:
        # Without an answer of ours, an encrypted key would make OpenSSL ask at the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password=_no_password)
    except _EncryptedKeyError:
        raise ConfigError(f"--ssl {key} is encrypted; a key without a password is wanted") from None
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ConfigError(f"--ssl {key} is not the key of the certificate {certificate}") from None
        raise ConfigError(
            f"--ssl takes a certificate and its key in PEM; {certificate} and {key} are none "
            f"({error.reason or error})"
        ) from None


class _EncryptedKeyError(Exception):
    pass


def _no_password() -> str:
    raise _EncryptedKeyError
