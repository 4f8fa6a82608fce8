"""What an endpoint says of itself to the API's description.

Bodies are read by hand, since Kobold's clients send JSON under any content type and want Kobold's
errors; so the models that read them are named here for `server.openapi`.
"""

from typing import Any

from server.wire.lenient import WireModel

BODY = "x-body"


def body_of(model: type[WireModel]) -> dict[str, Any]:
    """The `openapi_extra` of an endpoint that reads its body with `model`."""
    return {BODY: model}
