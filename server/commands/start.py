"""What comes before anything heavy is imported."""

import os
from pathlib import Path

from engine.architectures import open_model


def prepare_for_engine(model: Path) -> None:
    """Judge the model file, and set up the process for torch. Call before torch is imported.

    Raises `ModelFileError` for a bad file, before its user has waited for anything.
    """
    open_model(model).file.close()
    # torch's OpenMP threads spin at every barrier unless told otherwise. Beside any other busy process
    # that costs a factor of ten in speed; alone it gains next to nothing.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
