"""Finds the theta of a model: in its own file, or in a sidecar that was made for it."""

from pathlib import Path

from engine.errors import ModelFileError
from engine.gguf import GGUFFile, open_gguf
from engine.theta import names
from engine.theta.theta import Theta, read_theta


def open_theta(model: GGUFFile, sidecar: Path | None = None) -> Theta | None:
    """Theta from `sidecar` if one is given, else the model file's own; None if it has none.

    Raises `ModelFileError`, naming the file, for theta that is damaged, for a sidecar without theta and
    for one that was made for another model file.
    """
    if sidecar is None:
        return _read(model, model)
    with open_gguf(sidecar) as file:
        theta = _read(file, model)
        file.check_whole()
    if theta is None:
        raise ModelFileError(f"{sidecar}: holds no theta")
    base = base_sha256(model)
    if theta.base_sha256 != base:
        raise ModelFileError(
            f"{sidecar}: was made for another model file (sha256 {theta.base_sha256[:12]}..., but "
            f"{model.path.name} has {base[:12]}...)"
        )
    return theta


def base_sha256(model: GGUFFile) -> str:
    """The hexadecimal SHA-256 of the model file, or of the one that a `.nkat` file was made from.

    Hashing reads the whole file.
    """
    named = model.metadata.get(names.BASE_KEY)
    return named if isinstance(named, str) else model.sha256()


def _read(file: GGUFFile, model: GGUFFile) -> Theta | None:
    try:
        return read_theta(file, model.tensors)
    except ModelFileError as error:
        raise ModelFileError(f"{file.path}: {error}") from None
