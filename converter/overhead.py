"""What theta costs in the engine that will serve it."""

from pathlib import Path
from tempfile import TemporaryDirectory

from converter.job import ConversionJob
from converter.writer import write_sidecar
from engine.benchmark import measure_decode
from engine.config import EngineConfig
from engine.engine import Engine
from engine.theta import Theta

_CONTEXT = 256


def measure_overhead(job: ConversionJob, theta: Theta, architecture: str) -> float:
    """lambda_theta of decoding with this theta, from interleaved steps with it and without it.

    Theta only adds work: a reading below zero is noise, and counts as none.
    """
    with TemporaryDirectory(prefix="nkat-") as folder:
        sidecar = Path(folder) / "theta.bin"
        write_sidecar(theta, sidecar, architecture)
        config = EngineConfig(
            job.input,
            context_length=_CONTEXT,
            kv_tokens=_CONTEXT,
            threads=job.threads,
            device=job.device,
            theta_path=sidecar,
        )
        overhead = measure_decode(Engine.load(config)).overhead
    assert overhead is not None, "the sidecar holds theta"
    return max(0.0, overhead)
