import gc
import os
import signal
import sys
from pathlib import Path

import hypothesis
import pytest

from engine.native import native_kernels
from server.demo import DemoModelError
from tests.gate import SkipGate, read_rules
from tests.support.environment import clean_environment
from tests.support.lazy_import import import_lazily
from tests.support.models import smollm2_path

NATIVE_WANTED = os.environ.get("NKAT_NATIVE") != "0"

# Tests and the servers that they start see no setting of the user's.
clean_environment()

# Children of `trap '' INT` and of some supervisors ignore or block SIGINT, and so do theirs.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})


# Rewriting assertions takes half of the time of collection: keep the result for other processes and the
# next run. Servers that tests start keep their bytecode too.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Imports make a million objects that all stay: looking through them takes a third of the time of collection.
gc.disable()


# A slow machine is no fault of the code: no test may fail for the time that an example takes.
hypothesis.settings.register_profile(
    "nkat", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("nkat")

for client in ("anthropic", "openai"):
    import_lazily(client)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    is_worker = hasattr(config, "workerinput")
    if NATIVE_WANTED and not is_worker and not native_kernels():
        pytest.exit(
            "the C++ kernels are missing, and hundreds of tests need them: `make -B install` builds "
            "them or says why it cannot; NKAT_NATIVE=0 tests without them",
            returncode=pytest.ExitCode.USAGE_ERROR,
        )
    gate = SkipGate(config, read_rules(), ci="CI" in os.environ, kernels=NATIVE_WANTED)
    config.pluginmanager.register(gate, "skip-gate")


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """SmolLM2-135M-Instruct in Q4_1."""
    try:
        return smollm2_path()
    except DemoModelError as error:
        pytest.skip(f"the demo model cannot be fetched: {error}")
