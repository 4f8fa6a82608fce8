"""What the loaded model is called."""

from engine.types import ModelInfo


def model_name(info: ModelInfo) -> str:
    """The name that clients see: KoboldCpp's form, by which some know what they talk to."""
    return f"koboldcpp/{info.name}"
