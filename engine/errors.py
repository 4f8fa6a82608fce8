"""The engine's errors: whose fault it is decides what a caller does about it.

Every message is one line for a user: what is wrong and, where it is not obvious, what to do.
"""

NO_MEMORY = "there is not enough memory: choose a smaller context, or a model of a lighter quantisation"


class NkatError(Exception):
    """Base of all errors that the project raises on purpose."""


class ModelFileError(NkatError):
    """The model file is damaged, hostile, or of a kind that the engine does not know."""


class ConfigError(NkatError):
    """The settings contradict each other, the machine or the model."""


class RequestError(NkatError):
    """The client's fault: the request cannot be served however often it is sent."""


class ContextOverflowError(RequestError):
    """The prompt is longer than the context, and the client forbids to leave parts of it out."""

    def __init__(self, prompt_tokens: int, context: int) -> None:
        super().__init__(
            f"request ({prompt_tokens} tokens) exceeds the available context size ({context} tokens), "
            "try increasing it"
        )
        self.prompt_tokens = prompt_tokens
        self.context = context


class TemplateCostError(RequestError):
    """The model's chat template takes more time or memory for these messages than it may."""


class BusyError(NkatError):
    """No room at present: the same request may succeed later."""


class EngineDeadError(NkatError):
    """The engine thread has ended; neither present nor later requests will be served."""


def failure(message: str | None, *, refused: bool) -> NkatError:
    """What to raise for a generation that ended with an error: its own where it was refused."""
    if refused:
        return RequestError(message or "the request cannot be served")
    return EngineDeadError(message or "the engine failed")
