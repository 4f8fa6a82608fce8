"""The key that clients must send when the server has one."""

import hmac

from fastapi import Request

from server.wire.replies import HttpError

_BEARER = b"bearer "


class KeyGuard:
    """Lets requests pass that carry the key, and all of them when there is none.

    The key, text with more than spaces in it, comes as `Authorization: Bearer KEY`, and for Anthropic's
    clients as `x-api-key: KEY`. Without a key of the server's the headers are not looked at: some send
    `Bearer undefined` then.
    """

    def __init__(self, key: str | None) -> None:
        # Stripped as bytes, as what is sent: texts have more kinds of spaces.
        self._key = None if key is None else key.encode("utf-8").strip()

    @property
    def protected(self) -> bool:
        """Whether there is a key at all."""
        return self._key is not None

    def admits(self, request: Request) -> bool:
        """Whether the request may do what the key protects."""
        return self._is_key(_sent(request, b"authorization", _BEARER))

    def admits_any(self, request: Request) -> bool:
        """As `admits`, with the key in either header: also for what all dialects share."""
        return self.admits(request) or self._is_key(_sent(request, b"x-api-key"))

    def require(self, request: Request) -> None:
        """Dependency of protected routes; it runs before the body is read. Raises `HttpError`."""
        self._require(request, self.admits(request))

    def require_any(self, request: Request) -> None:
        """Dependency of Anthropic's routes: as `require`, and the key may come in either header."""
        self._require(request, self.admits_any(request))

    def _require(self, request: Request, admitted: bool) -> None:
        if not admitted:
            raise _unauthorized()
        request.state.has_key = self.protected

    def _is_key(self, sent: bytes | None) -> bool:
        if self._key is None:
            return True
        # Bytes: compare_digest takes no text beyond ASCII, and keys may be any text.
        return sent is not None and hmac.compare_digest(sent, self._key)


def _sent(request: Request, header: bytes, scheme: bytes = b"") -> bytes | None:
    """What the first such header says behind its scheme, byte for byte but for spaces round it."""
    for name, value in request.scope["headers"]:
        # Schemes are the same in capitals and small letters (RFC 9110).
        if name == header and value[: len(scheme)].lower() == scheme:
            return bytes(value[len(scheme) :].strip())
    return None


def _unauthorized() -> HttpError:
    return HttpError(401, "Authentication key is missing or invalid.", "unauthorized")
