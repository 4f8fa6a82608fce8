"""What comes before torch is imported. Knows no torch."""

import os
from pathlib import Path

from engine.architectures import open_model


def prepare_for_engine(model: Path) -> None:
    """Judge the model file, and set up the process. Call before torch is imported.

    Raises `ModelFileError` for a bad file, before its user has waited for anything.
    """
    open_model(model).file.close()
    set_up_process()


def set_up_process() -> None:
    """Set the environment that torch reads when it is imported; what the user has set stays."""
    # torch's OpenMP threads spin for milliseconds at every barrier unless told otherwise. Beside one busy
    # process that makes a step ten times slower; a short spin keeps most of the gain and none of the harm.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
