"""Finds out the facts. The only place that looks at files and at the machine."""

import importlib.metadata
import os
import platform
from collections import Counter
from pathlib import Path

from backend_selector import cuda
from backend_selector.cpuinfo import read_cpuinfo
from backend_selector.facts import FileFacts, MachineFacts, ThetaFacts, Widths
from backend_selector.parts import part_sizes
from backend_selector.plain_text import plain
from engine.architectures import ModelFile, open_model
from engine.errors import ModelFileError
from engine.gguf import GGUFFile, open_gguf
from engine.native import native_kernels
from engine.theta import Theta, base_sha256, read_theta
from engine.theta.names import corrected_tensor


def probe_file(path: Path, theta_path: Path | None = None) -> FileFacts:
    """The facts of a model file, and of its theta or of that in a sidecar.

    Reads no weights, unless there is a sidecar and only a hash of the whole file can tell whether it is for
    this model; whether it is, `select_backend` judges. Raises `ModelFileError`, naming the file, for one that
    the engine could not use.
    """
    model = open_model(path)
    with model.file as file:
        theta = _own_theta(file) if theta_path is None else _sidecar_theta(file, theta_path)
        tensors = [info for info in file.tensors.values() if corrected_tensor(info.name) is None]
        types = Counter(info.type.name for info in tensors if len(info.shape) > 1)
        parts = part_sizes(tensors, {} if theta is None else theta.factors, model.config.layers)
        return FileFacts(
            path=path,
            architecture=model.architecture,
            name=_name(file),
            size=sum(part.stat().st_size for part in file.paths),
            quantisation=types.most_common(1)[0][0],
            tensor_types=tuple(sorted({info.type.name for info in tensors})),
            parameters=sum(info.n_elements for info in tensors),
            trained_context=model.config.trained_context,
            cache_shape=model.config.cache_shape,
            widths=_widths(model),
            embedding=parts.embedding,
            blocks=parts.blocks,
            output=parts.output,
            tied="output.weight" not in file.tensors,
            theta=None if theta is None else _describe(theta),
            sha256=None if theta_path is None else base_sha256(file),
            surplus=len(tensors) < len(file.tensors),
        )


def probe_machine() -> MachineFacts:
    """The facts of this machine, for this process. Imports torch only if there is a CUDA driver."""
    total, available = _memory()
    torch = _torch_version()
    driver = cuda.has_driver()
    devices, fault = cuda.probe_devices() if driver and torch is not None else ((), None)
    return MachineFacts(
        cpu=read_cpuinfo(_read(Path("/proc/cpuinfo")), os.sched_getaffinity(0)),
        total_memory=total,
        available_memory=available,
        python=platform.python_version(),
        torch=torch,
        cuda_driver=driver,
        cuda=devices,
        cuda_fault=fault,
        kernels=(*native_kernels(), "reference"),
    )


def _own_theta(file: GGUFFile) -> Theta | None:
    try:
        return read_theta(file, file.tensors)
    except ModelFileError as error:
        raise ModelFileError(f"{file.path}: {error}") from None


def _sidecar_theta(model: GGUFFile, path: Path) -> Theta:
    with open_gguf(path) as file:
        try:
            theta = read_theta(file, model.tensors)
        except ModelFileError as error:
            raise ModelFileError(f"{path}: {error}") from None
    if theta is None:
        raise ModelFileError(f"{path}: holds no theta")
    return theta


def _describe(theta: Theta) -> ThetaFacts:
    return ThetaFacts(
        rank=theta.rank,
        gamma=theta.gamma,
        method=plain(theta.method[:100]),
        base_sha256=plain(theta.base_sha256[:100]),
        tensors=len(theta.factors),
    )


def _widths(model: ModelFile) -> Widths:
    config = model.config
    keys_and_values = config.kv_heads * (config.key_dim + config.value_dim)
    attention = config.heads * config.key_dim + keys_and_values
    return Widths(config.width, attention, config.feed_forward, config.vocab_size)


def _name(file: GGUFFile) -> str:
    name = file.metadata.get("general.name")
    return plain(name.strip()[:100] if isinstance(name, str) and name.strip() else file.path.stem)


def _torch_version() -> str | None:
    try:
        return importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return None


def _memory() -> tuple[int, int]:
    """Total and available bytes, by the rules of `engine.memory`."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for line in _read(Path("/proc/meminfo")).splitlines():
        if line.startswith("MemAvailable:"):
            return total, int(line.split()[1]) * 1024
    return total, total // 2


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
