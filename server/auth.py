"""The key that clients must send when the server has one."""

import hmac

from fastapi import Request

from server.wire.replies import HttpError


class KeyGuard:
    """Lets requests pass that carry the key, and all of them when there is none.

    Without a key the header is not looked at: some clients send `Bearer undefined` then.
    """

    def __init__(self, key: str | None) -> None:
        self._key = None if key is None else key.strip().encode("utf-8")

    @property
    def protected(self) -> bool:
        """Whether there is a key at all."""
        return self._key is not None

    def admits(self, request: Request) -> bool:
        """Whether the request may do what the key protects."""
        if self._key is None:
            return True
        # Bytes as sent: compare_digest takes no text beyond ASCII, and keys may be any text.
        for name, value in request.scope["headers"]:
            if name == b"authorization" and value.startswith(b"Bearer "):
                return hmac.compare_digest(value.removeprefix(b"Bearer ").strip(), self._key)
        return False

    def require(self, request: Request) -> None:
        """Dependency of protected routes; it runs before the body is read. Raises `HttpError`."""
        if not self.admits(request):
            raise HttpError(401, "Authentication key is missing or invalid.", "unauthorized")
